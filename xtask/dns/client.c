/* Looks names up as the C library does, or c-ares, and connects to what it gets.
 *
 *   client FAMILY FIRST COUNT
 *
 * Arguments and output are those of client/main.go. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef WITH_ARES
#include <ares.h>

static ares_channel channel;

struct result {
	struct sockaddr_storage *address;
	socklen_t length;
	int is_done;
};

static void found(void *to, int status, int timeouts, struct ares_addrinfo *list)
{
	struct result *result = to;
	(void)timeouts;
	result->is_done = 1;
	if (status != ARES_SUCCESS) {
		fprintf(stderr, "%s\n", ares_strerror(status));
		return;
	}
	memcpy(result->address, list->nodes->ai_addr, list->nodes->ai_addrlen);
	result->length = list->nodes->ai_addrlen;
	ares_freeaddrinfo(list);
}

/* 0: there is no answer. All questions go through one channel, which keeps its socket. */
static socklen_t look_up(const char *name, int family, struct sockaddr_storage *address)
{
	struct ares_addrinfo_hints hints = { .ai_family = family, .ai_socktype = SOCK_STREAM };
	struct result result = { address, 0, 0 };
	if (channel == NULL) {
		struct ares_options options = { .flags = ARES_FLAG_STAYOPEN };
		if (ares_library_init(ARES_LIB_INIT_ALL) != 0 || ares_init_options(&channel, &options, ARES_OPT_FLAGS) != 0)
			return 0;
	}
	ares_getaddrinfo(channel, name, "80", &hints, found, &result);
	while (!result.is_done) {
		fd_set readers, writers;
		struct timeval longest = { 20, 0 }, wait;
		FD_ZERO(&readers);
		FD_ZERO(&writers);
		int count = ares_fds(channel, &readers, &writers);
		if (select(count, &readers, &writers, NULL, ares_timeout(channel, &longest, &wait)) < 0)
			return 0;
		ares_process(channel, &readers, &writers);
	}
	return result.length;
}
#else
/* 0: there is no answer. */
static socklen_t look_up(const char *name, int family, struct sockaddr_storage *address)
{
	struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM }, *list;
	int status = getaddrinfo(name, "80", &hints, &list);
	if (status != 0) {
		fprintf(stderr, "%s: %s\n", name, gai_strerror(status));
		return 0;
	}
	socklen_t length = list->ai_addrlen;
	memcpy(address, list->ai_addr, length);
	freeaddrinfo(list);
	return length;
}
#endif

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* Seconds until it is connected; negative: it is not. */
static double connected(int family, const struct sockaddr_storage *address, socklen_t length)
{
	double started = seconds();
	int failure = 0;
	socklen_t size = sizeof failure;
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	struct pollfd polled = { .fd = fd, .events = POLLOUT };
	int is_connected = (connect(fd, (const struct sockaddr *)address, length) == 0 || errno == EINPROGRESS) &&
		poll(&polled, 1, 2500) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 && failure == 0;
	close(fd);
	return is_connected ? seconds() - started : -1;
}

int main(int count_of_arguments, char **arguments)
{
	if (count_of_arguments < 4)
		return 2;
	int is_v4 = atoi(arguments[1]) == 4, first = atoi(arguments[2]), count = atoi(arguments[3]);
	int at_once = 0, late = 0, failed = 0;
	for (int n = first; n < first + count; n++) {
		char name[64];
		struct sockaddr_storage address;
		int family = is_v4 ? AF_INET : AF_INET6;
		if (is_v4)
			snprintf(name, sizeof name, "v4-%d-%d-%d.example.com", 18 + (n >> 16), n >> 8 & 255, n & 255);
		else
			snprintf(name, sizeof name, "v6-%x-%x.example.com", n >> 16, n & 0xffff);
		socklen_t length = look_up(name, family, &address);
		double took = length == 0 ? -1 : connected(family, &address, length);
		if (took < 0)
			failed++;
		else if (took < 0.9)
			at_once++;
		else
			late++;
	}
	printf("%d %d %d\n", at_once, late, failed);
	return 0;
}
