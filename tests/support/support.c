#include "support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void test_failed(const char *what, mh_status got, mh_status want, const char *words)
{
    const char *message = mh_last_message();
    if (got != want)
        fail_msg("%s: status is '%s', wanted '%s' (last message: %s)", what, mh_status_text(got),
                 mh_status_text(want), message);
    assert_null(strchr(message, '\n'));
    while (*words) {
        char word[256];
        size_t length = strcspn(words, "|");
        assert_true(length < sizeof(word));
        memcpy(word, words, length);
        word[length] = 0;
        if (!strstr(message, word))
            fail_msg("%s: the message does not say '%s': %s", what, word, message);
        words += length + (words[length] == '|');
    }
}

char *test_make_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = malloc(4096);
    assert_non_null(dir);
    snprintf(dir, 4096, "%s/moehal-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(dir))
        fail_msg("%s: no folder could be made", dir);
    return dir;
}

void test_remove_dir(char *dir)
{
    DIR *list = opendir(dir);
    for (struct dirent *e; list && (e = readdir(list));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlink(test_path(dir, e->d_name));
    if (list)
        closedir(list);
    rmdir(dir);
    free(dir);
}

const char *test_path(const char *dir, const char *name)
{
    static char buffers[4][4096];
    static unsigned next;
    char *path = buffers[next++ % 4];
    assert_true(snprintf(path, sizeof(buffers[0]), "%s/%s", dir, name) < (int)sizeof(buffers[0]));
    return path;
}

void test_write(const char *path, const void *data, uint64_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file))
        fail_msg("%s: could not be written", path);
}

void test_write_text(const char *path, const char *text)
{
    test_write(path, text, strlen(text));
}

void *test_read(const char *path, uint64_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        fail_msg("%s: could not be read", path);
    long size = ftell(file);
    rewind(file);
    char *data = malloc((size_t)size + 1);
    if (!data || fread(data, 1, (size_t)size, file) != (size_t)size)
        fail_msg("%s: could not be read", path);
    data[size] = 0;
    fclose(file);
    if (bytes)
        *bytes = (uint64_t)size;
    return data;
}

void test_copy(const char *from, const char *to)
{
    uint64_t bytes;
    void *data = test_read(from, &bytes);
    test_write(to, data, bytes);
    free(data);
}

int test_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int test_count_files(const char *dir)
{
    int count = 0;
    DIR *list = opendir(dir);
    assert_non_null(list);
    for (struct dirent *e; (e = readdir(list));)
        count += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(list);
    return count;
}

void test_write_safetensors(const char *path, const char *header, uint64_t zeros)
{
    uint64_t length = strlen(header);
    unsigned char *file = calloc(1, 8 + length + zeros);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)(length >> 8 * i);
    memcpy(file + 8, header, length);
    test_write(path, file, 8 + length + zeros);
    free(file);
}
