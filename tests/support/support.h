/*
 * support.h: what test programs share: cmocka with the headers it wants, folders of their own, and
 * failures judged by status and by words of the message.
 */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <moehal/error.h>

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != MH_OK)                                                                       \
            fail_msg("%s: %s", #call, mh_last_message());                                          \
    } while (0)

/* The call fails with this status, and its message holds each of the words, in one line. Words are
 * separated by '|': "config.json|hidden_size|-1". `what` names the case in a complaint. */
void test_failed(const char *what, mh_status got, mh_status want, const char *words);

/* A new empty folder under TMPDIR; test_remove_dir removes it with all files in it and frees. */
char *test_make_dir(void);
void test_remove_dir(char *dir);

/* "DIR/NAME" in one of a few static buffers: good for one expression. */
const char *test_path(const char *dir, const char *name);

void test_write(const char *path, const void *data, uint64_t bytes);
void test_write_text(const char *path, const char *text);
/* The whole file, owned; `bytes` may be NULL. A NUL follows it. */
void *test_read(const char *path, uint64_t *bytes);
void test_copy(const char *from, const char *to);
int test_exists(const char *path);
/* How many files a folder holds. */
int test_count_files(const char *dir);

/* A safetensors file of any header, followed by `zeros` bytes of data; without padding, so that the
 * data lies at an odd place where the header has an odd length. */
void test_write_safetensors(const char *path, const char *header, uint64_t zeros);

#endif
