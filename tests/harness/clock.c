// The wall clock of one process, set apart from the machine's: loaded before its libraries. How far, in seconds, stands in the file that the environment names.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *apart;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HARNESS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *apart, PROT_READ, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED)
        apart = shared;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && apart && clock == CLOCK_REALTIME)
        now->tv_sec += *apart;
    return failed;
}
