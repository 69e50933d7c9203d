/* Subscribes N times and counts what comes; each event carries `@@` and 19 digits, the nanoseconds
   of CLOCK_MONOTONIC at which it was made.
   Usage: reader PORT N SECONDS PATH SERVER_PID [BYTES EVENTS_PER_S]
   With BYTES it speaks to a NATS server instead of HTTP and publishes the events itself (0 a
   second: as fast as they come back). Figures: deliveries a second, delivery latency, the server's
   private KiB a subscriber, its CPU microseconds a delivery, and how many subscribers got nothing. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 21, ROOM = 1 << 18, SAMPLES = 1 << 22, AHEAD = 512, BURST = 64 };

struct peer {
    int fd, carried, opened;
    long got;
    char carry[MARK];
};

static char buffer[MARK + ROOM];
static float *took;
static long samples, deliveries, seen, bytes;
static int measuring, every = 1;

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static long private_kib(int pid) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    long sum = 0, one;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Private_Clean: %ld", &one) == 1 || sscanf(line, "Private_Dirty: %ld", &one) == 1)
            sum += one;
    if (file) fclose(file);
    return sum;
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

static void take(struct peer *p) {
    ssize_t got = recv(p->fd, buffer + p->carried, ROOM, MSG_DONTWAIT);
    if (got == 0) {
        fprintf(stderr, "the server closed a stream\n");
        exit(1);
    }
    if (got < 0) return;
    memcpy(buffer, p->carry, p->carried);
    p->opened = 1;
    if (measuring) bytes += got;
    char *at = buffer, *end = buffer + p->carried + got;
    p->carried = 0;
    while ((at = memchr(at, '@', end - at))) {
        if (end - at < MARK) {
            p->carried = end - at;
            memcpy(p->carry, at, p->carried);
            break;
        }
        if (at[1] != '@') {
            at++;
            continue;
        }
        seen++;
        if (measuring) p->got++;
        if (measuring && ++deliveries % every == 0 && samples < SAMPLES) {
            char digits[20];
            memcpy(digits, at + 2, 19);
            digits[19] = 0;
            took[samples++] = (now_ns() - atoll(digits)) / 1e6;
        }
        at += MARK;
    }
}

static int connected(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (fd < 0 || connect(fd, (void *)&to, sizeof to)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) die("send");
        data += sent;
        size -= sent;
    }
}

static void publish(int fd, int size) {
    static char message[65536];
    int head = snprintf(message, sizeof message, "PUB x %d\r\n@@%019lld", size, now_ns());
    int whole = head - MARK + size + 2;
    memset(message + head, 'x', whole - head - 2);
    memcpy(message + whole - 2, "\r\n", 2);
    send_all(fd, message, whole);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 6 && argc != 8) return 2;
    int port = atoi(argv[1]), count = atoi(argv[2]), server = atoi(argv[5]);
    int nats = argc == 8, size = nats ? atoi(argv[6]) : 0;
    double seconds = atof(argv[3]), rate = nats ? atof(argv[7]) : 0;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
        cpu_set_t core;
        CPU_ZERO(&core);
        CPU_SET(1, &core);
        sched_setaffinity(0, sizeof core, &core);
    }
    took = malloc(SAMPLES * sizeof *took);
    long before = private_kib(server);
    int poll = epoll_create1(0), publisher = -1;
    struct peer *peers = calloc(count, sizeof *peers);
    for (int i = 0; i < count; i++) {
        char request[1024];
        peers[i].fd = connected(port);
        int length = nats ? snprintf(request, sizeof request, "CONNECT {\"verbose\":false}\r\nSUB x 1\r\nPING\r\n")
                          : snprintf(request, sizeof request,
                                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
                                     "Authorization: Bearer bench-%d\r\n\r\n",
                                     argv[4], i / 20);
        send_all(peers[i].fd, request, length);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &peers[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, peers[i].fd, &event)) die("epoll");
    }
    if (nats) {
        publisher = connected(port);
        const char hello[] = "CONNECT {\"verbose\":false}\r\n";
        send_all(publisher, hello, sizeof hello - 1);
    }
    /* All streams are open, then half a second of rest, memory, the server's start, a warm-up. */
    long long opened_all = 0, from = 0, end = 0, next = 0, published = 0;
    long kib = 0;
    double cpu = 0;
    for (int open = 0;;) {
        struct epoll_event events[512];
        int ready = epoll_wait(poll, events, 512, rate > 0 ? 1 : 10);
        for (int i = 0; i < ready; i++) {
            struct peer *p = events[i].data.ptr;
            open -= p->opened;
            take(p);
            open += p->opened;
        }
        long long t = now_ns();
        if (open == count && !opened_all) opened_all = t;
        if (!opened_all) continue;
        if (!kib && t > opened_all + 500000000LL) kib = private_kib(server) - before;
        if (!from && t > opened_all + 2000000000LL) {
            measuring = 1;
            every = seen > 1000000 ? 16 : 1;
            from = t;
            end = from + (long long)(seconds * 1e9);
            cpu = cpu_s(server);
        }
        if (end && t >= end) break;
        if (!nats || t < opened_all + 1000000000LL) continue;
        if (rate > 0) {
            for (next = next ? next : t; next <= t; next += (long long)(1e9 / rate)) publish(publisher, size);
        } else if (published - seen / count < AHEAD) {
            for (int i = 0; i < BURST; i++, published++) publish(publisher, size);
        }
    }
    double lasted = (now_ns() - from) / 1e9;
    cpu = cpu_s(server) - cpu;
    if (!samples) {
        fprintf(stderr, "nothing came\n");
        return 1;
    }
    qsort(took, samples, sizeof *took, by_value);
    long starved = 0;
    for (int i = 0; i < count; i++) starved += peers[i].got == 0;
    printf("{\"rate\": %f, \"count\": %ld, \"failed\": %ld, \"mb_s\": %f, \"p50_ms\": %f, \"p99_ms\": %f, "
           "\"kib\": %f, \"cpu_us\": %f, \"cpu_percent\": %f}\n",
           deliveries / lasted, deliveries, starved, bytes / lasted / 1e6, took[samples / 2],
           took[(long)(samples * 0.99)], (double)kib / count, cpu * 1e6 / deliveries, cpu / lasted * 100);
    return 0;
}
