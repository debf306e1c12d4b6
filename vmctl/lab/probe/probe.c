/* Measures what single operations cost, and says it line by line.
 *
 * The very same static binary runs in every mode, in a container and on the host. Usage:
 *
 *     probe run SECONDS SLICES DISK OFFSET ADDRESS PORT WORKLOAD...
 *     probe serve ADDRESS PORT       the other end of the network workloads
 *     probe keep PROGRAM WORD...     runs a server until standard input ends
 *
 * Each workload runs one slice that is not reported (warm-up) and then SLICES slices of SECONDS
 * each. DISK is a file or block device that is only read, from the byte OFFSET on; - for none.
 * It says:
 *
 *     vmctl-lab begin CLOCK              seconds of the boot clock at the first instruction
 *     vmctl-lab fact KEY VALUE
 *     vmctl-lab sample WORKLOAD VALUE UNIT OPERATIONS
 *     vmctl-lab void WORKLOAD REASON     cannot be measured here
 *     vmctl-lab end CLOCK
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NANO 1000000000.0
#define PAGE 4096
#define BUFFER (16 << 20)      /* larger than most second-level caches, fits a small guest */
#define PAGES 256              /* pages touched for each mapping */
#define BLOCK 4096
#define SORTED 256            /* numbers in each sorting */
#define BULK (1 << 20)
#define DISK_LENGTH (60 << 20) /* bytes of the disk that are read */
#define PORT_DELAY 0x80        /* the diagnostic port: reading it has no effect */
#define CLOCK_TICK 1000000L    /* nanoseconds that the timer workload sleeps */
#define GIVE_UP 20             /* seconds a network peer may be silent */

static double slice_seconds = 0.1;
static int slices = 3;
static const char *disk_path = "-", *peer_address = "-";
static int peer_port;
static off_t disk_offset; /* what lies before it is the job itself */
static volatile uint64_t sink;

/* What one slice did: `operations` in `nanoseconds`; `bytes` where it moves data. */
struct slice {
    double operations, nanoseconds, bytes;
};

static double now(clockid_t clock)
{
    struct timespec moment;
    clock_gettime(clock, &moment);
    return moment.tv_sec * NANO + moment.tv_nsec;
}

static double tick(void) { return now(CLOCK_MONOTONIC); }

/* Repeats what is given, BATCH operations, until the slice is over; the clock is read between. */
#define REPEAT(BATCH, ...)                                                                         \
    do {                                                                                           \
        double begun = tick(), end = begun + slice_seconds * NANO, at = begun;                     \
        for (; at < end; at = tick()) {                                                            \
            __VA_ARGS__;                                                                           \
            done.operations += (BATCH);                                                            \
        }                                                                                          \
        done.nanoseconds = at - begun;                                                             \
    } while (0)

/* Sorts numbers: loads, stores, compares and branches that are hard to guess, as programs have. */
static struct slice integers(void)
{
    struct slice done = {0};
    uint64_t chance = 88172645463325252ULL;
    uint32_t numbers[SORTED];
    REPEAT(SORTED, {
        for (int i = 0; i < SORTED; i++) {
            chance ^= chance << 13; chance ^= chance >> 7; chance ^= chance << 17;
            numbers[i] = (uint32_t)chance;
        }
        for (int gap = SORTED / 2; gap > 0; gap /= 2)
            for (int i = gap; i < SORTED; i++) {
                uint32_t moved = numbers[i];
                int place = i;
                for (; place >= gap && numbers[place - gap] > moved; place -= gap)
                    numbers[place] = numbers[place - gap];
                numbers[place] = moved;
            }
        sink = numbers[SORTED / 2];
    });
    return done;
}

static struct slice floats(void)
{
    struct slice done = {0};
    volatile double start = 0.999999;
    double seed = start, a = 1, b = 2, c = 3, d = 4;
    REPEAT(4000, for (int i = 0; i < 1000; i++) {
        a = a * seed + 1e-6; b = b * seed + 2e-6; c = c * seed + 3e-6; d = d * seed + 4e-6;
    });
    sink = (uint64_t)((a + b + c + d) * 1e6);
    return done;
}

static uint64_t *buffer(void)
{
    static uint64_t *memory;
    if (!memory) {
        memory = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) { memory = NULL; return NULL; }
        memset(memory, 1, BUFFER);
    }
    return memory;
}

static struct slice memory_read(void)
{
    struct slice done = {0};
    const uint64_t *words = buffer();
    uint64_t a = 0, b = 0;
    size_t place = 0;
    if (!words) { done.operations = -ENOMEM; return done; }
    REPEAT(1, {
        for (size_t i = 0; i < (1 << 20) / 8; i += 4) {
            a += words[place + i] + words[place + i + 1];
            b += words[place + i + 2] + words[place + i + 3];
        }
        place = (place + (1 << 20) / 8) % (BUFFER / 8);
        done.bytes += 1 << 20;
    });
    sink = a + b;
    return done;
}

/* Follows pointers in an order that no prefetcher guesses, one in each cache line. */
static struct slice memory_random(void)
{
    struct slice done = {0};
    enum { LINE = 8, COUNT = BUFFER / 64 };
    static int chained;
    uint64_t *words = buffer(), place = 0;
    if (!words) { done.operations = -ENOMEM; return done; }
    if (!chained) {
        uint64_t chance = 88172645463325252ULL;
        uint32_t *order = malloc(COUNT * sizeof *order);
        if (!order) { done.operations = -ENOMEM; return done; }
        for (uint32_t i = 0; i < COUNT; i++) order[i] = i;
        for (uint32_t i = COUNT - 1; i > 0; i--) {
            chance ^= chance << 13; chance ^= chance >> 7; chance ^= chance << 17;
            uint32_t other = chance % (i + 1), kept = order[i];
            order[i] = order[other];
            order[other] = kept;
        }
        for (uint32_t i = 0; i < COUNT; i++)
            words[(uint64_t)order[i] * LINE] = (uint64_t)order[(i + 1) % COUNT] * LINE;
        free(order);
        chained = 1;
    }
    REPEAT(1000, for (int i = 0; i < 1000; i++) place = words[place]);
    sink = place;
    return done;
}

static struct slice system_call(void)
{
    struct slice done = {0};
    REPEAT(200, for (int i = 0; i < 200; i++) syscall(SYS_getppid));
    return done;
}

static struct slice clock_read(void)
{
    struct slice done = {0};
    struct timespec moment;
    REPEAT(50, for (int i = 0; i < 50; i++) clock_gettime(CLOCK_MONOTONIC, &moment));
    return done;
}

/* Two processes on one processor hand a byte back and forth: two switches each time. */
static struct slice context_switch(void)
{
    struct slice done = {0};
    int there[2], back[2];
    cpu_set_t all, one;
    char byte = 0;
    if (pipe(there) || pipe(back)) { done.operations = -errno; return done; }
    sched_getaffinity(0, sizeof all, &all);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all)) { CPU_SET(cpu, &one); break; }
    sched_setaffinity(0, sizeof one, &one);
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) if (write(back[1], &byte, 1) != 1) break;
        _exit(0);
    }
    if (child < 0) { done.operations = -errno; return done; }
    close(there[0]);
    REPEAT(20, for (int i = 0; i < 10; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) break);
    close(there[1]); close(back[0]); close(back[1]);
    waitpid(child, NULL, 0);
    sched_setaffinity(0, sizeof all, &all);
    return done;
}

static struct slice process_start(void)
{
    struct slice done = {0};
    REPEAT(1, {
        pid_t child = fork();
        if (child == 0) _exit(0);
        if (child < 0) { done.operations = -errno; return done; }
        waitpid(child, NULL, 0);
    });
    return done;
}

static struct slice page_fault(void)
{
    struct slice done = {0};
    REPEAT(PAGES, {
        char *fresh = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh == MAP_FAILED) { done.operations = -errno; return done; }
        madvise(fresh, PAGES * PAGE, MADV_NOHUGEPAGE);
        for (int i = 0; i < PAGES; i++) fresh[i * PAGE] = 1;
        munmap(fresh, PAGES * PAGE);
    });
    return done;
}

/* How much later than asked for a sleeper wakes up. */
static struct slice timer(void)
{
    struct slice done = {0};
    double late = 0;
    REPEAT(1, {
        struct timespec pause = {0, CLOCK_TICK};
        double asleep = tick();
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        late += tick() - asleep - CLOCK_TICK;
    });
    done.nanoseconds = late;
    return done;
}

static sigjmp_buf refused;

static void refuse(int number) { siglongjmp(refused, number); }

static struct slice port_io(void)
{
    struct slice done = {0};
    if (ioperm(PORT_DELAY, 1, 1)) { done.operations = -errno; return done; }
    /* QEMU 7.2, where it emulates AMD-V, lets no program of a nested guest read a port (#GP). */
    if (sigsetjmp(refused, 1)) {
        signal(SIGSEGV, SIG_DFL);
        done.operations = -EOPNOTSUPP;
        return done;
    }
    signal(SIGSEGV, refuse);
    inb(PORT_DELAY);
    signal(SIGSEGV, SIG_DFL);
    REPEAT(20, for (int i = 0; i < 20; i++) sink = inb(PORT_DELAY));
    return done;
}

static struct slice cpuid(void)
{
    struct slice done = {0};
    unsigned a, b, c, d;
    REPEAT(20, for (int i = 0; i < 20; i++) { __cpuid(0, a, b, c, d); sink = a + b + c + d; });
    return done;
}

static int opened_disk(void)
{
    int disk = open(disk_path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    return disk < 0 ? -errno : disk;
}

static struct slice disk_read(size_t size, int sequential)
{
    static uint64_t chance = 88172645463325252ULL;
    static off_t next;
    struct slice done = {0};
    void *memory;
    int disk = opened_disk();
    if (disk < 0) { done.operations = disk; return done; }
    if (posix_memalign(&memory, PAGE, size)) { done.operations = -ENOMEM; return done; }
    REPEAT(1, {
        chance ^= chance << 13; chance ^= chance >> 7; chance ^= chance << 17;
        off_t place = (off_t)(chance % (DISK_LENGTH / size) * size);
        if (sequential) {
            place = next;
            next = next + 2 * (off_t)size > DISK_LENGTH ? 0 : next + (off_t)size;
        }
        ssize_t got = pread(disk, memory, size, disk_offset + place);
        if (got != (ssize_t)size) {
            done.operations = got < 0 ? -errno : -EIO;
            break;
        }
        done.bytes += size;
    });
    free(memory);
    close(disk);
    return done;
}

static struct slice disk_random(void) { return disk_read(BLOCK, 0); }
static struct slice disk_sequential(void) { return disk_read(BULK, 1); }

static int connected(char job)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(peer_port)};
    struct timeval patience = {GIVE_UP, 0};
    int yes = 1, peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, peer_address, &there.sin_addr) != 1) { close(peer); return -EINVAL; }
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(peer, (void *)&there, sizeof there) || write(peer, &job, 1) != 1) {
        int problem = -errno;
        close(peer);
        return problem;
    }
    return peer;
}

static struct slice network(char job)
{
    struct slice done = {0};
    static char memory[1 << 16];
    int peer = connected(job);
    if (peer < 0) { done.operations = peer; return done; }
    REPEAT(1, {
        ssize_t moved = job == 'r' ? read(peer, memory, sizeof memory)
                                   : write(peer, memory, job == 'e' ? 1 : sizeof memory);
        if (job == 'e' && moved == 1) moved = read(peer, memory, 1);
        if (moved <= 0) { done.operations = moved < 0 ? -errno : -EPIPE; break; }
        done.bytes += moved;
    });
    if (job == 's' && done.operations > 0) {
        /* What lies in buffers has not been sent: wait until the other end has it all. */
        double begun = tick();
        shutdown(peer, SHUT_WR);
        while (read(peer, memory, sizeof memory) > 0);
        done.nanoseconds += tick() - begun;
    }
    close(peer);
    return done;
}

static struct slice round_trip(void) { return network('e'); }
static struct slice receive(void) { return network('r'); }
static struct slice send_bulk(void) { return network('s'); }

static const struct workload {
    const char *name;
    struct slice (*run)(void);
    const char *unit; /* ns: for each operation; MiB/s: of the bytes moved */
} workloads[] = {
    {"cpu-integer", integers, "ns"},       {"cpu-float", floats, "ns"},
    {"memory-read", memory_read, "MiB/s"}, {"memory-random", memory_random, "ns"},
    {"system-call", system_call, "ns"},    {"clock-read", clock_read, "ns"},
    {"context-switch", context_switch, "ns"}, {"process-start", process_start, "ns"},
    {"page-fault", page_fault, "ns"},      {"timer", timer, "ns"},
    {"port-io", port_io, "ns"},            {"cpuid", cpuid, "ns"},
    {"disk-random", disk_random, "ns"},    {"disk-sequential", disk_sequential, "MiB/s"},
    {"net-round-trip", round_trip, "ns"},  {"net-receive", receive, "MiB/s"},
    {"net-send", send_bulk, "MiB/s"},
};

static void measure(const struct workload *chosen)
{
    for (int number = 0; number <= slices; number++) {
        struct slice done = chosen->run();
        if (done.operations <= 0) {
            printf("vmctl-lab void %s %s\n", chosen->name,
                   done.operations < 0 ? strerror(-(int)done.operations) : "nothing was done");
            return;
        }
        if (number == 0) continue;
        double value = chosen->unit[0] == 'n' ? done.nanoseconds / done.operations
                                              : done.bytes / (1 << 20) / (done.nanoseconds / NANO);
        printf("vmctl-lab sample %s %.6g %s %.0f\n", chosen->name, value, chosen->unit,
               done.operations);
    }
}

static void tell_file(const char *key, const char *path)
{
    char line[256] = "";
    FILE *file = fopen(path, "r");
    if (!file) return;
    if (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        printf("vmctl-lab fact %s %s\n", key, line);
    }
    fclose(file);
}

/* Which namespaces it is in: the same numbers as the host's where it was given none of its own. */
static void tell_namespaces(void)
{
    static const char *kinds[] = {"pid", "net", "ipc", "uts", "mnt", "cgroup", "user", "time"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64], where[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        ssize_t length = readlink(path, where, sizeof where - 1);
        if (length <= 0) continue;
        where[length] = 0;
        printf("vmctl-lab fact namespace-%s %s\n", kinds[i], where);
    }
}

static void tell_facts(void)
{
    union { unsigned words[3]; char text[13]; } name = {.text = ""};
    unsigned a, c = 0, unused;
    cpu_set_t mine;
    __cpuid(1, a, unused, c, unused);
    if (c >> 31) {
        __cpuid(0x40000000, a, name.words[0], name.words[1], name.words[2]);
        name.text[12] = 0;
        for (char *letter = name.text; *letter; letter++)
            if (*letter < ' ' || *letter > '~') *letter = '?';
    }
    printf("vmctl-lab fact hypervisor %s\n", c >> 31 ? name.text : "none");
    tell_file("clocksource", "/sys/devices/system/clocksource/clocksource0/current_clocksource");
    tell_file("kernel", "/proc/sys/kernel/osrelease");
    if (!sched_getaffinity(0, sizeof mine, &mine))
        printf("vmctl-lab fact cpus %d\n", CPU_COUNT(&mine));
    tell_namespaces();
}

static int run(char **words)
{
    printf("vmctl-lab begin %.6f\n", now(CLOCK_BOOTTIME) / NANO);
    fflush(stdout);
    slice_seconds = atof(words[0]);
    slices = atoi(words[1]);
    disk_path = words[2];
    disk_offset = atoll(words[3]);
    peer_address = words[4];
    peer_port = atoi(words[5]);
    tell_facts();
    for (char **name = words + 6; *name; name++) {
        const struct workload *chosen = NULL;
        for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++)
            if (!strcmp(*name, workloads[i].name)) chosen = &workloads[i];
        if (chosen) measure(chosen);
        else printf("vmctl-lab void %s this probe does not know it\n", *name);
        fflush(stdout);
    }
    printf("vmctl-lab end %.6f\n", now(CLOCK_BOOTTIME) / NANO);
    return fflush(stdout) != 0;
}

static void attend(int guest)
{
    static char memory[1 << 16];
    int yes = 1;
    char job = 0;
    setsockopt(guest, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (read(guest, &job, 1) == 1) {
        if (job == 'e') while (read(guest, memory, 1) == 1 && write(guest, memory, 1) == 1);
        if (job == 'r') while (write(guest, memory, sizeof memory) > 0);
        if (job == 's') while (read(guest, memory, sizeof memory) > 0);
    }
    close(guest);
}

/* Serves one guest after the other; the first line says which port it is. */
static int serve(const char *address, int port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof here;
    int yes = 1, door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (inet_pton(AF_INET, address, &here.sin_addr) != 1 ||
        bind(door, (void *)&here, sizeof here) || listen(door, 4) ||
        getsockname(door, (void *)&here, &length)) {
        perror("vmctl-lab serve");
        return 1;
    }
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        struct pollfd either[] = {{.fd = door, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        if (poll(either, 2, -1) < 0 && errno != EINTR) return 1;
        if (either[1].revents) return 0; /* whoever started us is gone */
        if (!either[0].revents) continue;
        int guest = accept(door, NULL, NULL);
        if (guest >= 0) attend(guest);
        else if (errno != EINTR && errno != ECONNABORTED) return 1;
    }
}

/* Runs another program for as long as somebody holds our standard input open. */
static int keep(char **words)
{
    char nothing;
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(words[0], words);
        _exit(127);
    }
    while (read(0, &nothing, 1) > 0);
    kill(child, SIGKILL);
    return waitpid(child, NULL, 0) != child;
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    if (count >= 8 && !strcmp(words[1], "run")) return run(words + 2);
    if (count == 4 && !strcmp(words[1], "serve")) return serve(words[2], atoi(words[3]));
    if (count >= 3 && !strcmp(words[1], "keep")) return keep(words + 2);
    fprintf(stderr, "usage: see the head of probe.c\n");
    return 2;
}
