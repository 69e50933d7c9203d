/* The plainest fan-out there is: one send() an event and subscriber, over TCP, framed as SSE.
   Usage: fanout SUBSCRIBERS BYTES EVENTS_PER_S (0: as fast as the readers take it).
   Prints its port; begins a second after the last subscriber came; runs until it is killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sleep_until(long long at) {
    struct timespec t = {at / 1000000000LL, at % 1000000000LL};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) exit(0); /* the reader is done */
        data += sent;
        size -= sent;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int count = atoi(argv[1]), size = atoi(argv[2]);
    double rate = atof(argv[3]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(0, &core);
    sched_setaffinity(0, sizeof core, &core);
    int door = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t at_size = sizeof at;
    if (bind(door, (void *)&at, sizeof at) || listen(door, 1024)) die("listen");
    getsockname(door, (void *)&at, &at_size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    int *peers = malloc(count * sizeof *peers);
    for (int i = 0; i < count; i++) {
        char request[4096];
        peers[i] = accept(door, NULL, NULL);
        if (peers[i] < 0 || recv(peers[i], request, sizeof request, 0) <= 0) die("accept");
        setsockopt(peers[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        send_all(peers[i], HEAD, sizeof HEAD - 1);
    }
    char *event = malloc(size + 1);
    memset(event, 'x', size);
    memcpy(event, "data: ", 6);
    memcpy(event + size - 2, "\n\n", 2);
    long long next = now_ns() + 1000000000LL;
    for (;;) {
        if (rate > 0 || next > now_ns()) {
            sleep_until(next);
            next += rate > 0 ? (long long)(1e9 / rate) : -2000000000LL;
        }
        char stamp[24];
        snprintf(stamp, sizeof stamp, "@@%019lld", now_ns());
        memcpy(event + 6, stamp, 21);
        for (int i = 0; i < count; i++) send_all(peers[i], event, size);
    }
}
