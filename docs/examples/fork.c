/* fork.c: after fork() the child's handles fail cleanly; it makes a runtime of its own. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <moehal/moehal.h>

static int child(mh_runtime *runtime, mh_device *device, mh_buffer *buffer)
{
    mh_stream *stream = NULL;
    mh_runtime *own = NULL;
    int ok = mh_stream_create(device, &stream) == MH_STALE_HANDLE &&
             mh_buffer_write(buffer, 0, "x", 1) == MH_STALE_HANDLE &&
             !mh_runtime_create(NULL, &own);
    mh_buffer_release(buffer); /* legal: frees the child's copies and touches no device */
    mh_device_release(device);
    mh_runtime_release(runtime);
    mh_runtime_release(own);
    return !ok;
}

int main(void)
{
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_buffer *buffer = NULL;
    int status = 1;
    int ok = !mh_runtime_create(NULL, &runtime) && !mh_device_open(runtime, NULL, NULL, &device) &&
             !mh_buffer_create(device, 64, MH_BUFFER_DEVICE, &buffer);
    fflush(stdout);
    pid_t pid = ok ? fork() : -1;
    if (pid == 0)
        _exit(child(runtime, device, buffer));
    ok = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    ok = ok && !mh_buffer_write(buffer, 0, "x", 1); /* the parent notices nothing */
    mh_buffer_release(buffer);
    mh_device_release(device);
    mh_runtime_release(runtime);
    puts(ok ? "parent and child went on" : "something is wrong");
    return !ok;
}
