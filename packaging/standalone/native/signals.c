/* Signal 34 is a signal like any other, as with glibc. musl keeps it for itself, to have all threads of a process call
 * setuid(2) and the like: there is one thread here. Otherwise RTMIN+N would be another signal here than for everybody
 * else, and 34 could not be blocked: it would end us instead of going on to the command. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST 34
/* 32 and 33, as glibc has them. */
#define OWN 0x180000000ul
#define WORD (8 * sizeof(unsigned long))

int __libc_current_sigrtmin(void)
{
    return FIRST;
}

static int is_own(int number)
{
    return number < 1 || number >= _NSIG || number == 32 || number == 33;
}

int sigaddset(sigset_t *set, int number)
{
    if (is_own(number)) {
        errno = EINVAL;
        return -1;
    }
    set->__bits[(number - 1) / WORD] |= 1ul << (number - 1) % WORD;
    return 0;
}

int sigdelset(sigset_t *set, int number)
{
    if (is_own(number)) {
        errno = EINVAL;
        return -1;
    }
    set->__bits[(number - 1) / WORD] &= ~(1ul << (number - 1) % WORD);
    return 0;
}

int sigfillset(sigset_t *set)
{
    memset(set, 0xff, _NSIG / 8);
    set->__bits[0] &= ~OWN;
    return 0;
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    int error = syscall(SYS_rt_sigprocmask, how, set, old, _NSIG / 8) < 0 ? errno : 0;
    if (error == 0 && old != NULL) {
        old->__bits[0] &= ~OWN;
    }
    return error;
}
