/* Starts and reaps a program as fast as it goes, LIVE at a time. Usage: spawn SECONDS LIVE PROGRAM */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    double began = now(), end = began + atof(argv[1]);
    int live = 0, most = atoi(argv[2]);
    long count = 0, failed = 0;
    char *command[] = {argv[3], NULL};
    while (now() < end) {
        for (; live < most; live++) {
            pid_t pid;
            if (posix_spawn(&pid, argv[3], NULL, NULL, command, environ)) return 1;
        }
        int status;
        if (wait(&status) < 0) return 1;
        live--;
        if (status) failed++;
        else count++;
    }
    double lasted = now() - began;
    while (live-- > 0) wait(NULL);
    printf("{\"rate\": %f, \"count\": %ld, \"failed\": %ld}\n", count / lasted, count, failed);
    return 0;
}
