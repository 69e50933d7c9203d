/* A job's first instruction: appends its command's id and the monotonic nanoseconds to a file.
   Usage: stamp FILE */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    char line[128];
    const char *id = getenv("JOBBUS_COMMAND_ID");
    int size = snprintf(line, sizeof line, "%s %lld\n", id ? id : "-", t.tv_sec * 1000000000LL + t.tv_nsec);
    int file = argc == 2 ? open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    return file < 0 || write(file, line, size) != size;
}
