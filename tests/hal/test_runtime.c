/* Runtimes, modules, struct versions, callbacks, fork. argv[1]: the folder of the test modules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <moehal/moehal.h>

static char frozen_path[1024], probe_path[1024], abi_path[1024], partial_path[1024],
    half_path[1024], short_path[1024], absent_path[1024], other_path[1024];

static void assert_message_has(const char *part)
{
    if (!strstr(mh_last_message(), part))
        fail_msg("message '%s' lacks '%s'", mh_last_message(), part);
}

static mh_runtime *with_modules(const char *const *modules, uint64_t count)
{
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = modules;
    params.module_count = count;
    params.flags = MH_RUNTIME_NO_ENVIRONMENT;
    mh_runtime *runtime;
    assert_int_equal(mh_runtime_create(&params, &runtime), MH_OK);
    return runtime;
}

static mh_backend_info backend_of(mh_runtime *runtime, const char *path)
{
    mh_backend_info info = MH_INIT(mh_backend_info);
    for (uint32_t i = 0; mh_runtime_backend(runtime, i, &info) == MH_OK; i++)
        if (!strcmp(info.path, path))
            return info;
    fail_msg("%s is not listed", path);
    return info;
}

static void host_is_always_first(void **state)
{
    (void)state;
    mh_runtime *runtime = with_modules(NULL, 0);
    mh_backend_info info = MH_INIT(mh_backend_info);
    assert_int_equal(mh_runtime_backend(runtime, 0, &info), MH_OK);
    assert_string_equal(info.name, "host");
    assert_int_equal(info.device_count, 1);
    assert_int_equal(mh_runtime_backend(runtime, 1000, &info), MH_NOT_FOUND);
    mh_runtime_release(runtime);
}

static void other_abi_is_refused_naming_both(void **state)
{
    (void)state;
    const char *modules[] = {abi_path};
    mh_runtime *runtime = with_modules(modules, 1);
    mh_backend_info info = backend_of(runtime, abi_path);
    char theirs[32], ours[32];
    snprintf(theirs, sizeof(theirs), "MH_ABI %u,", MH_ABI + 7);
    snprintf(ours, sizeof(ours), "MH_ABI %u", MH_ABI);
    assert_int_equal(info.status, MH_ABI_MISMATCH);
    assert_non_null(strstr(info.reason, theirs));
    assert_non_null(strstr(strstr(info.reason, theirs) + strlen(theirs), ours));
    mh_runtime_release(runtime);
}

/* Built against the headers as they were when this MH_ABI was frozen. */
static void a_module_of_the_frozen_headers_works(void **state)
{
    (void)state;
    const char *modules[] = {frozen_path};
    mh_runtime *runtime = with_modules(modules, 1);
    assert_int_equal(backend_of(runtime, frozen_path).status, MH_OK);
    mh_device *device;
    mh_buffer *buffer;
    mh_stream *stream;
    float values[4] = {1, 2, 3, 4};
    const int64_t shape[] = {2, 2};
    assert_int_equal(mh_device_open(runtime, "null", NULL, &device), MH_OK);
    assert_int_equal(mh_buffer_create(device, 16, 0, &buffer), MH_OK);
    assert_int_equal(mh_stream_create(device, &stream), MH_OK);
    assert_int_equal(mh_buffer_write(buffer, 0, values, 16), MH_OK);
    mh_op_add add = MH_OP_INIT(add, ADD);
    add.y = add.a = add.b = mh_tensor_make(buffer, 0, MH_F32, 2, shape);
    assert_int_equal(mh_encode(mh_stream_encoder(stream), &add.base), MH_OK);
    assert_int_equal(mh_stream_read(stream, buffer, 0, values, 16), MH_OK);
    assert_int_equal(mh_stream_wait(stream, MH_FOREVER), MH_OK);
    assert_true(values[0] == 2 && values[3] == 8);
    assert_int_equal(mh_device_fallbacks(device, MH_OP_ADD), 1);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
}

static void the_shortest_table_will_do(void **state)
{
    (void)state;
    const char *modules[] = {short_path};
    mh_runtime *runtime = with_modules(modules, 1);
    assert_int_equal(backend_of(runtime, short_path).status, MH_OK);
    mh_runtime_release(runtime);
}

static void bad_modules_are_listed_with_reasons(void **state)
{
    (void)state;
    const char *modules[] = {partial_path, other_path, "relative/path.so", "/nowhere/at/all.so",
                             probe_path,   probe_path, half_path};
    mh_runtime *runtime = with_modules(modules, 7);
    assert_non_null(strstr(backend_of(runtime, partial_path).reason, "function init"));
    assert_non_null(strstr(backend_of(runtime, other_path).reason, "mh_backend_entry"));
    assert_non_null(strstr(backend_of(runtime, modules[2]).reason, "absolute"));
    assert_non_null(strstr(backend_of(runtime, modules[3]).reason, "/nowhere/at/all.so"));
    assert_non_null(
        strstr(backend_of(runtime, half_path).reason, "without its function graph.create"));
    assert_int_equal(backend_of(runtime, probe_path).status, MH_OK);
    mh_device *device;
    assert_int_equal(mh_device_open(runtime, "probe:0", NULL, &device), MH_OK);
    mh_device_release(device);
    /* The second one of a name is refused, the first one works. */
    mh_backend_info info = MH_INIT(mh_backend_info);
    assert_int_equal(mh_runtime_backend(runtime, 6, &info), MH_OK);
    assert_non_null(strstr(info.reason, "named probe is loaded already"));
    mh_runtime_release(runtime);
}

static void a_broken_device_hides_no_other(void **state)
{
    (void)state;
    const char *modules[] = {probe_path};
    mh_runtime *runtime = with_modules(modules, 1);
    mh_device *device;
    assert_int_equal(mh_device_open(runtime, "probe:1", NULL, &device), MH_VENDOR_ERROR);
    assert_message_has("fuse blown");
    assert_int_equal(mh_device_open(runtime, "probe:probe-0", NULL, &device), MH_OK);
    assert_string_equal(mh_device_uri(device), "probe:0");
    mh_device_release(device);
    assert_int_equal(mh_device_open(runtime, "nvidia:3", NULL, &device), MH_NOT_FOUND);
    assert_message_has("nvidia:3");
    assert_message_has("host:0");
    mh_error error = MH_INIT(mh_error);
    assert_int_equal(mh_last_error(&error), MH_OK);
    assert_int_equal(error.vendor_code, 0); /* no vendor had a part in it */
    assert_string_equal(error.vendor_call, "");
    assert_string_equal(error.vendor_name, "");
    assert_string_equal(error.file, "device.c");
    assert_int_equal(mh_device_open(runtime, "auto", NULL, &device), MH_OK);
    assert_string_equal(mh_device_uri(device), "host:0"); /* probe is by name only */
    mh_device_release(device);
    mh_runtime_release(runtime);
}

static void environment_only_where_allowed(void **state)
{
    (void)state;
    char folder[1024], list[1100];
    snprintf(folder, sizeof(folder), "%s", probe_path);
    *strrchr(folder, '/') = 0;
    /* The second of the folders has it; the others are none, empty, and not absolute. */
    snprintf(list, sizeof(list), "/nowhere/at/all:%s::not/absolute", folder);
    setenv("MOEHAL_BACKENDS", list, 1);
    mh_runtime *without = with_modules(NULL, 0), *with;
    mh_device *device;
    assert_int_equal(mh_device_open(without, "probe", NULL, &device), MH_NOT_FOUND);
    assert_int_equal(mh_runtime_create(NULL, &with), MH_OK);
    setenv("MOEHAL_DEVICE", "probe", 1);
    assert_int_equal(mh_device_open(with, NULL, NULL, &device), MH_OK);
    assert_string_equal(mh_device_uri(device), "probe:0");
    mh_device_release(device);
    unsetenv("MOEHAL_DEVICE");
    unsetenv("MOEHAL_BACKENDS");
    mh_runtime_release(with);
    mh_runtime_release(without);
}

static void structs_of_other_versions(void **state)
{
    (void)state;
    mh_runtime *runtime;
    struct {
        mh_runtime_params known;
        uint64_t tail[2];
    } longer = {.known = {.struct_size = sizeof(longer), .flags = MH_RUNTIME_NO_ENVIRONMENT}};
    assert_int_equal(mh_runtime_create(&longer.known, &runtime), MH_OK);
    mh_runtime_release(runtime);
    longer.tail[1] = 1;
    assert_int_equal(mh_runtime_create(&longer.known, &runtime), MH_INVALID_ARGUMENT);
    assert_message_has("mh_runtime_params");
    /* A tail is looked at up to 4096 bytes. */
    char *tail = calloc(1, sizeof(mh_runtime_params) + 4097);
    uint64_t size = sizeof(mh_runtime_params) + 4096;
    assert_non_null(tail);
    memcpy(tail, &longer.known, sizeof(longer.known));
    memcpy(tail, &size, sizeof(size));
    assert_int_equal(mh_runtime_create((void *)tail, &runtime), MH_OK);
    mh_runtime_release(runtime);
    size++;
    memcpy(tail, &size, sizeof(size));
    assert_int_equal(mh_runtime_create((void *)tail, &runtime), MH_INVALID_ARGUMENT);
    free(tail);
    mh_runtime_params shorter = {.struct_size = 16};
    assert_int_equal(mh_runtime_create(&shorter, &runtime), MH_OK);
    /* Outputs respect the caller's size. */
    struct {
        mh_backend_info info;
        char guard[64];
    } out;
    memset(&out, 0x5a, sizeof(out));
    out.info.struct_size = offsetof(mh_backend_info, name) + 8;
    assert_int_equal(mh_runtime_backend(runtime, 0, &out.info), MH_OK);
    assert_memory_equal(out.info.name, "host\0\0\0\0", 8);
    assert_int_equal(out.info.name[8], 0x5a);
    mh_runtime_release(runtime);
    shorter.struct_size = 4;
    assert_int_equal(mh_runtime_create(&shorter, &runtime), MH_INVALID_ARGUMENT);
    assert_message_has("struct_size is 4");
}

struct books {
    int64_t live;
    uint64_t errors;
    mh_status last;
};

static void *book_allocate(void *user, uint64_t size)
{
    ((struct books *)user)->live++;
    return malloc(size);
}

static void book_deallocate(void *user, void *memory)
{
    ((struct books *)user)->live--;
    free(memory);
}

static void book_error(void *user, const mh_error *error)
{
    struct books *books = user;
    books->errors++;
    books->last = error->status;
}

static void allocator_and_error_callback_are_used(void **state)
{
    (void)state;
    struct books books = {0};
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.allocate = book_allocate;
    params.deallocate = book_deallocate;
    params.allocator_user = &books;
    params.error = book_error;
    params.error_user = &books;
    params.flags = MH_RUNTIME_NO_ENVIRONMENT;
    const char *absent = absent_path;
    params.modules = &absent, params.module_count = 1;
    mh_runtime *runtime;
    assert_int_equal(mh_runtime_create(&params, &runtime), MH_OK);
    assert_true(books.live > 0);
    /* A machine without this vendor is no error of the embedder's. */
    assert_int_equal(books.errors, 0);
    mh_backend_info info = backend_of(runtime, absent_path);
    assert_int_equal(info.status, MH_NOT_FOUND);
    assert_non_null(strstr(info.reason, "libvendor.so.1: not found"));
    mh_device *device;
    assert_int_equal(mh_device_open(runtime, "no such", NULL, &device), MH_NOT_FOUND);
    assert_int_equal(books.errors, 1);
    assert_int_equal(books.last, MH_NOT_FOUND);
    assert_int_equal(mh_device_open(runtime, "host", NULL, &device), MH_OK);
    mh_device_release(device);
    mh_runtime_release(runtime);
    assert_int_equal(books.live, 0);
    params.deallocate = NULL;
    assert_int_equal(mh_runtime_create(&params, &runtime), MH_INVALID_ARGUMENT);
}

static void messages_are_safe_to_print(void **state)
{
    (void)state;
    assert_int_equal(mh_fail(MH_BAD_DATA, "a\033[31m\nb"), MH_BAD_DATA);
    assert_string_equal(mh_last_message(), "a?[31m?b");
    mh_error error = MH_INIT(mh_error);
    assert_int_equal(mh_last_error(&error), MH_OK);
    assert_string_equal(error.file, "test_runtime.c");
    assert_int_equal(error.status, MH_BAD_DATA);
}

static void handles_fail_cleanly_after_fork(void **state)
{
    (void)state;
    mh_runtime *runtime = with_modules(NULL, 0);
    mh_device *device;
    mh_stream *stream;
    mh_buffer *buffer;
    assert_int_equal(mh_device_open(runtime, "host", NULL, &device), MH_OK);
    assert_int_equal(mh_stream_create(device, &stream), MH_OK);
    assert_int_equal(mh_buffer_create(device, 64, 0, &buffer), MH_OK);
    pid_t child = fork();
    if (!child) {
        int good = 1;
        mh_device *other;
        mh_op_fill fill = MH_OP_INIT(fill, FILL);
        good &= mh_device_open(runtime, "host", NULL, &other) == MH_STALE_HANDLE;
        good &= mh_encode(mh_stream_encoder(stream), &fill.base) == MH_STALE_HANDLE;
        good &= mh_stream_wait(stream, MH_FOREVER) == MH_STALE_HANDLE;
        good &= mh_buffer_write(buffer, 0, "x", 1) == MH_STALE_HANDLE;
        mh_buffer_release(buffer);
        mh_stream_release(stream);
        mh_device_release(device);
        mh_runtime_release(runtime);
        mh_runtime *mine;
        good &= mh_runtime_create(NULL, &mine) == MH_OK;
        good &= mh_device_open(mine, "host", NULL, &other) == MH_OK;
        _exit(good ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(mh_stream_wait(stream, MH_FOREVER), MH_OK);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    snprintf(probe_path, sizeof(probe_path), "%s/probe.so", argv[1]);
    snprintf(frozen_path, sizeof(frozen_path), "%s/frozen_null.so", argv[1]);
    snprintf(half_path, sizeof(half_path), "%s/half.so", argv[1]);
    snprintf(short_path, sizeof(short_path), "%s/short.so", argv[1]);
    snprintf(absent_path, sizeof(absent_path), "%s/absent.so", argv[1]);
    snprintf(abi_path, sizeof(abi_path), "%s/bad1.so", argv[1]);
    snprintf(partial_path, sizeof(partial_path), "%s/bad2.so", argv[1]);
    snprintf(other_path, sizeof(other_path), "%s/bad3.so", argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_is_always_first),
        cmocka_unit_test(other_abi_is_refused_naming_both),
        cmocka_unit_test(a_module_of_the_frozen_headers_works),
        cmocka_unit_test(the_shortest_table_will_do),
        cmocka_unit_test(bad_modules_are_listed_with_reasons),
        cmocka_unit_test(a_broken_device_hides_no_other),
        cmocka_unit_test(environment_only_where_allowed),
        cmocka_unit_test(structs_of_other_versions),
        cmocka_unit_test(allocator_and_error_callback_are_used),
        cmocka_unit_test(messages_are_safe_to_print),
        cmocka_unit_test(handles_fail_cleanly_after_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
