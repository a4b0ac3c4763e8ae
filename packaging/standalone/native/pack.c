/* A tool of the build: compresses its standard input, by the same zlib wherever it is built. */
#include <stdio.h>
#include <zlib.h>

static unsigned char text[1 << 24], packed[1 << 24];

int main(void)
{
    uLongf size = sizeof packed;
    size_t count = fread(text, 1, sizeof text, stdin);
    return compress2(packed, &size, text, count, 9) != Z_OK || fwrite(packed, 1, size, stdout) != size || fflush(stdout);
}
