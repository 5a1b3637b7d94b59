// Cooperative groups and CUB: code that people call and do not write.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_reduce.cuh>
#include <cub/warp/warp_scan.cuh>

namespace cg = cooperative_groups;

extern "C" __global__ void groups(const int *in, int *out)
{
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<8> tile = cg::tiled_partition<8>(block);
    int v = in[block.thread_rank()];
    for (int offset = 4; offset; offset /= 2)
        v += tile.shfl_down(v, offset);
    v = tile.shfl(v, 0);
    if (v & 1) { // the lanes that are here make a group
        cg::coalesced_group here = cg::coalesced_threads();
        v = here.size() * 1000 + here.thread_rank();
    }
    block.sync();
    int total = cg::reduce(cg::tiled_partition<32>(block), v, cg::plus<int>());
    out[block.thread_rank()] = v + total;
}

extern "C" __global__ void cub_reduce(const int *in, int *out)
{
    using Reduce = cub::BlockReduce<int, 128>;
    __shared__ typename Reduce::TempStorage storage;
    int sum = Reduce(storage).Sum(in[blockIdx.x * 128 + threadIdx.x]);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

extern "C" __global__ void cub_scan(const int *in, int *out)
{
    using Scan = cub::BlockScan<int, 128>;
    __shared__ typename Scan::TempStorage storage;
    int items[4];
    for (int i = 0; i < 4; i++)
        items[i] = in[threadIdx.x * 4 + i];
    Scan(storage).ExclusiveSum(items, items);
    for (int i = 0; i < 4; i++)
        out[threadIdx.x * 4 + i] = items[i];
}

extern "C" __global__ void cub_sort(const unsigned *in, unsigned *out)
{
    using Sort = cub::BlockRadixSort<unsigned, 128, 4>;
    __shared__ typename Sort::TempStorage storage;
    unsigned items[4];
    for (int i = 0; i < 4; i++)
        items[i] = in[threadIdx.x * 4 + i];
    Sort(storage).Sort(items);
    for (int i = 0; i < 4; i++)
        out[threadIdx.x * 4 + i] = items[i];
}

extern "C" __global__ void cub_warp(const int *in, int *out)
{
    using Reduce = cub::WarpReduce<int>;
    using Scan = cub::WarpScan<int>;
    __shared__ typename Reduce::TempStorage reduce[4];
    __shared__ typename Scan::TempStorage scan[4];
    int w = threadIdx.x / 32, v = in[threadIdx.x], running;
    int sum = Reduce(reduce[w]).Sum(v);
    sum = __shfl_sync(~0u, sum, 0);
    Scan(scan[w]).InclusiveSum(v, running);
    out[threadIdx.x] = running * 1000 + sum;
}
