/* Whose ranks are which: with other processes that say what they like; and whose memory a transport
 * is given. argv: crowd.c's module, the null backend's. */
#include <moehal/backend.h>

#include "world.h"

static const char *crowd_path, *null_folder;

struct crowd {
    mh_runtime *runtime;
    mh_transport *transport;
    uint32_t *says;
};

static struct crowd gather_round(void)
{
    struct crowd c;
    OK(mh_runtime_create(NULL, &c.runtime));
    OK(mh_transport_open(c.runtime, crowd_path, &c.transport));
    void *module = dlopen(crowd_path, RTLD_NOW | RTLD_NOLOAD);
    c.says = dlsym(module, "crowd_says");
    assert_non_null(c.says);
    dlclose(module);
    return c;
}

static void go_home(struct crowd *c)
{
    mh_transport_release(c->transport);
    mh_runtime_release(c->runtime);
}

static void says(const struct crowd *c, uint32_t p0, uint32_t p1, uint32_t p3)
{
    c->says[0] = p0;
    c->says[1] = p1;
    c->says[3] = p3;
}

static void ranks_go_by_processes(void **state)
{
    (void)state;
    struct crowd c = gather_round();
    uint32_t counts[4], first = 99, all = 99;
    says(&c, 3, 1, 7);
    OK(mh_transport_ranks(c.transport, 2, counts, &first, &all));
    assert_int_equal(first, 3 + 1);
    assert_int_equal(all, 3 + 1 + 2 + 7);
    assert_memory_equal(counts, ((uint32_t[]){3, 1, 2, 7}), sizeof(counts));
    OK(mh_transport_ranks(NULL, 5, counts, &first, &all)); /* one process */
    assert_int_equal(counts[0], 5);
    assert_int_equal(first, 0);
    assert_int_equal(all, 5);
    go_home(&c);
}

static void counts_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct crowd c = gather_round();
    uint32_t counts[4], first, all;
    says(&c, 1, 0, 1);
    REFUSED(MH_BAD_DATA, mh_transport_ranks(c.transport, 2, counts, &first, &all),
            "transport crowd: process 1 of 4 says that it has 0 ranks, must be 1 to 65535");
    says(&c, 1, 1, 65532); /* 65536 with ours: still good */
    OK(mh_transport_ranks(c.transport, 2, counts, &first, &all));
    says(&c, 1, 1, 65533);
    REFUSED(MH_BAD_DATA, mh_transport_ranks(c.transport, 2, counts, &first, &all),
            "process 3 of 4 says that it has 65533 ranks, must be 1 to 65532");
    says(&c, 2, UINT32_MAX, 1); /* would wrap around */
    REFUSED(MH_BAD_DATA, mh_transport_ranks(c.transport, 2, counts, &first, &all), "process 1");
    REFUSED(MH_INVALID_ARGUMENT, mh_transport_ranks(c.transport, 0, counts, &first, &all),
            "own is 0, must be 1 to 65536");
    REFUSED(MH_INVALID_ARGUMENT, mh_transport_ranks(NULL, 65537, counts, &first, &all),
            "own is 65537");
    REFUSED(MH_INVALID_ARGUMENT, mh_transport_ranks(NULL, 1, NULL, &first, &all), "counts is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_transport_ranks(NULL, 1, counts, NULL, &all), "first is NULL");
    REFUSED(MH_INVALID_ARGUMENT, mh_transport_ranks(NULL, 1, counts, &first, NULL), "all is NULL");
    go_home(&c);
}

/* Both who ask: a communicator, and a model (tests/spread has that one, over MPI). */
static void a_communicator_asks(void **state)
{
    (void)state;
    struct crowd c = gather_round();
    mh_device *device;
    mh_stream *streams[2];
    mh_comm *comm;
    mh_comm_info info = MH_INIT(mh_comm_info);
    OK(mh_device_open(c.runtime, "host", NULL, &device));
    OK(mh_stream_create(device, &streams[0]));
    OK(mh_stream_create(device, &streams[1]));
    says(&c, 1, 4, 1);
    OK(mh_comm_create(streams, 2, c.transport, &comm));
    OK(mh_comm_get_info(comm, &info));
    assert_int_equal(info.first, 5);
    assert_int_equal(info.count, 2);
    assert_int_equal(info.ranks, 8);
    mh_comm_release(comm);
    says(&c, 0, 4, 1);
    REFUSED(MH_BAD_DATA, mh_comm_create(streams, 2, c.transport, &comm), "process 0 of 4");
    assert_null(comm);
    mh_stream_release(streams[0]);
    mh_stream_release(streams[1]);
    mh_device_release(device);
    go_home(&c);
}

/* Where the crowd is told to leave what all ranks have. */
static const char *all_gather(const struct crowd *c, const char *uri)
{
    mh_device *device;
    mh_stream *stream;
    mh_comm *comm;
    mh_buffer *x, *y;
    char zeros[12] = {0};
    OK(mh_device_open(c->runtime, uri, NULL, &device));
    OK(mh_stream_create(device, &stream));
    OK(mh_comm_create(&stream, 1, c->transport, &comm));
    OK(mh_buffer_create(device, 64, 0, &x));
    OK(mh_buffer_create(device, 256, 0, &y));
    OK(mh_stream_write(stream, x, 0, zeros, sizeof(zeros)));
    mh_tensor from = mh_tensor_make(x, 0, MH_I32, 1, (int64_t[]){3});
    mh_tensor to = mh_tensor_make(y, 128, MH_I32, 1, (int64_t[]){12});
    OK(mh_comm_all_gather(comm, &to, &from));
    void *module = dlopen(crowd_path, RTLD_NOW | RTLD_NOLOAD);
    const char *saw = *(const char **)dlsym(module, "crowd_saw");
    dlclose(module);
    const mh_buffer_view *view = mh_view_buffer(y);
    const char *where = view->host && saw == (const char *)view->host + 128 ? "host"
                        : saw == (const char *)view->handle + 128           ? "device"
                                                                            : "staging";
    mh_buffer_release(x);
    mh_buffer_release(y);
    mh_comm_release(comm);
    mh_stream_release(stream);
    mh_device_release(device);
    return where;
}

static void memory_in_reach_is_not_staged(void **state)
{
    (void)state;
    setenv("MOEHAL_BACKENDS", null_folder, 1);
    struct crowd c = gather_round();
    says(&c, 1, 1, 1);
    assert_string_equal(all_gather(&c, "host"), "host");
    assert_string_equal(all_gather(&c, "null"), "staging");
    setenv("MOEHAL_GPU_AWARE", "1", 1);
    assert_string_equal(all_gather(&c, "host"), "host");
    assert_string_equal(all_gather(&c, "null"), "device");
    setenv("MOEHAL_GPU_AWARE", "0", 1);
    assert_string_equal(all_gather(&c, "null"), "staging");
    unsetenv("MOEHAL_GPU_AWARE");
    go_home(&c);
}

int main(int argc, char **argv)
{
    assert_int_equal(argc, 3);
    crowd_path = argv[1];
    null_folder = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_go_by_processes),
        cmocka_unit_test(counts_that_cannot_be_are_refused),
        cmocka_unit_test(a_communicator_asks),
        cmocka_unit_test(memory_in_reach_is_not_staged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
