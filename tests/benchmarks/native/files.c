/* Durable files, grouped: write GROUP files, one syncfs, rename all, one fsync of the directory.
   With GROUP 1: fdatasync of the file instead of syncfs. Usage: files FOLDER SECONDS GROUP BYTES */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    double seconds = atof(argv[2]);
    int group = atoi(argv[3]), size = atoi(argv[4]);
    char *body = malloc(size);
    memset(body, 'x', size);
    if (chdir(argv[1])) die("chdir");
    if (mkdir("queue", 0700) || mkdir("queue/.tmp", 0700)) die("mkdir");
    int queue = open("queue", O_RDONLY | O_DIRECTORY), tmp = open("queue/.tmp", O_RDONLY | O_DIRECTORY);
    long count = 0, taken = 0, room = 1 << 20;
    double *took = malloc(room * sizeof *took);
    double began = now(), end = began + seconds, t0;
    while ((t0 = now()) < end) {
        char name[64];
        for (int i = 0; i < group; i++) {
            snprintf(name, sizeof name, "%036ld.json", count + i);
            int file = openat(tmp, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
            if (file < 0 || write(file, body, size) != size) die("write");
            if (group == 1 && fdatasync(file)) die("fdatasync");
            close(file);
        }
        if (group > 1 && syncfs(queue)) die("syncfs");
        for (int i = 0; i < group; i++) {
            snprintf(name, sizeof name, "%036ld.json", count + i);
            if (renameat(tmp, name, queue, name)) die("rename");
        }
        if (fsync(queue)) die("fsync");
        count += group;
        if (taken < room) took[taken++] = now() - t0;
    }
    double lasted = now() - began;
    qsort(took, taken, sizeof *took, by_value);
    printf("{\"rate\": %f, \"count\": %ld, \"failed\": 0, \"p50_ms\": %f, \"p99_ms\": %f}\n", count / lasted, count,
           took[taken / 2] * 1e3, took[(long)(taken * 0.99)] * 1e3);
    return 0;
}
