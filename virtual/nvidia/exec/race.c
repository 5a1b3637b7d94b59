#include "memory.h"
struct vn_race *vn_race_create(struct vn_launch_state *s){(void)s;return (void*)1;}
void vn_race_destroy(struct vn_race *race){(void)race;}
struct vn_global_race *vn_global_race_create(struct vn_launch_state *s){(void)s;return (void*)1;}
void vn_global_race_destroy(struct vn_global_race *race){(void)race;}
void vn_race_barrier(struct vn_block *block, uint32_t id){(void)block,(void)id;}
void vn_race_arrive(struct vn_warp *w, uint32_t id){(void)w,(void)id;}
void vn_race_warp(struct vn_warp *w, uint32_t mask){(void)w,(void)mask;}
void vn_race_fence(struct vn_warp *w, uint16_t order){(void)w,(void)order;}
void vn_race_shared(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,int kind){(void)w,(void)a,(void)mask,(void)size,(void)kind;}
void vn_race_global(struct vn_warp *w, const struct vn_addresses *a, uint32_t mask, uint32_t size,int kind){(void)w,(void)a,(void)mask,(void)size,(void)kind;}
void vn_check_async(struct vn_warp *w, uint64_t address, uint32_t size, uint32_t lane,const char *kind){(void)w,(void)address,(void)size,(void)lane,(void)kind;}

