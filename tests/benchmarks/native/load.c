/* Sends one HTTP request over and over on CONNECTIONS kept-alive connections, each waiting for its
   answer. Counts answers of status 2xx apart, lines of batches that hold a problem, and the server's CPU
   time.
   Usage: load PORT CONNECTIONS SECONDS REQUEST-FILE SERVER_PID */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 65536, SAMPLES = 1 << 22 };

struct peer {
    int fd, have;
    double asked;
    char buffer[ROOM + 1];
};

static char request[ROOM];
static int request_size;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_s(int pid) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    unsigned long user = 0, system = 0;
    if (file && fgets(line, sizeof line, file)) {
        char *rest = strrchr(line, ')');
        if (rest) sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    }
    if (file) fclose(file);
    return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void ask(struct peer *p) {
    p->have = 0;
    p->asked = now();
    if (send(p->fd, request, request_size, MSG_NOSIGNAL) != request_size) die("send");
}

/* The length of the whole answer, or 0 while its head is not complete. */
static int answer_size(struct peer *p) {
    p->buffer[p->have] = 0;
    char *end = strstr(p->buffer, "\r\n\r\n");
    if (!end) return 0;
    char *length = strcasestr(p->buffer, "\r\ncontent-length:");
    int body = length && length < end ? atoi(length + 17) : 0;
    return (int)(end - p->buffer) + 4 + body;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int server = atoi(argv[5]);
    int count = atoi(argv[2]);
    double seconds = atof(argv[3]);
    FILE *file = fopen(argv[4], "rb");
    if (!file || (request_size = fread(request, 1, ROOM, file)) <= 0) die("request");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int poll = epoll_create1(0), yes = 1;
    struct peer *peers = calloc(count, sizeof *peers);
    float *took = malloc(SAMPLES * sizeof *took);
    for (int i = 0; i < count; i++) {
        peers[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(peers[i].fd, (void *)&to, sizeof to)) die("connect");
        setsockopt(peers[i].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &peers[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, peers[i].fd, &event)) die("epoll");
    }
    double from = now() + seconds / 4, end = from + seconds;
    long good = 0, bad = 0, all = 0, refused = 0;
    char complaint[300] = "";
    double cpu = cpu_s(server);
    for (int i = 0; i < count; i++) ask(&peers[i]);
    while (now() < end) {
        struct epoll_event events[256];
        int ready = epoll_wait(poll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct peer *p = events[i].data.ptr;
            int got = recv(p->fd, p->buffer + p->have, ROOM - p->have, 0);
            if (got <= 0) die("the server closed a connection");
            p->have += got;
            int whole = answer_size(p);
            if (!whole || p->have < whole) continue;
            double done = now();
            all++;
            if (p->buffer[9] != '2') {
                bad++;
                if (!*complaint) snprintf(complaint, sizeof complaint, "%.299s", p->buffer);
            } else if (done >= from && done < end) {
                for (char *at = p->buffer; (at = strstr(at, "\"problem\":")); at++) refused++;
                if (good < SAMPLES) took[good] = done - p->asked;
                good++;
            }
            ask(p);
        }
    }
    cpu = cpu_s(server) - cpu;
    if (*complaint) fprintf(stderr, "%s\n", complaint);
    long kept = good < SAMPLES ? good : SAMPLES;
    if (!kept) return 1;
    qsort(took, kept, sizeof *took, by_value);
    printf("{\"rate\": %f, \"count\": %ld, \"bad\": %ld, \"refused\": %ld, \"p50_ms\": %f, \"p99_ms\": %f, "
           "\"cpu_us\": %f}\n",
           good / seconds, all, bad, refused, took[kept / 2] * 1e3, took[(long)(kept * 0.99)] * 1e3, cpu * 1e6 / all);
    return 0;
}
