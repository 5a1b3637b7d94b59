/* lame_little.c: a driver library with one function. */
__attribute__((visibility("default"))) int cuInit(unsigned int flags);
int cuInit(unsigned int flags)
{
    return (int)flags;
}
