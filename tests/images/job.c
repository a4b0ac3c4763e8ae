/* The command that the tests run in images: says who it is, waits for SIGTERM if asked to, and ends with 7. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void note(int number) { asked = number; }

int main(int count, char **words) {
    sigset_t term, before;
    signal(SIGTERM, note);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    printf("user %d, root is %s\n", getuid(), open("/written", O_CREAT | O_WRONLY, 0600) < 0 ? "read-only" : "writable");
    fflush(stdout);
    while (count > 1 && !strcmp(words[1], "wait") && !asked) sigsuspend(&before);
    return 7;
}
