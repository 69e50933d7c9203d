/* Prints MEGABYTES of 100-byte lines in blocks of 64 KiB.
   Usage: lines MEGABYTES */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    enum { LINE = 100, BLOCK = 65500 };
    static char block[BLOCK];
    for (int i = 0; i < BLOCK; i += LINE) {
        snprintf(block + i, LINE, "%098d", i);
        block[i + LINE - 1] = '\n';
    }
    for (int i = 0; i < BLOCK; i++)
        if (!block[i]) block[i] = ' ';
    long left = argc == 2 ? atol(argv[1]) * 1000000L : 0;
    while (left > 0) {
        long size = left < BLOCK ? left : BLOCK, done = 0;
        while (done < size) {
            ssize_t some = write(1, block + done, size - done);
            if (some < 0) return 1;
            done += some;
        }
        left -= size;
    }
    return 0;
}
