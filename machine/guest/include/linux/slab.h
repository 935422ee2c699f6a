#ifndef LINUX_SLAB_H
#define LINUX_SLAB_H

#include <linux/gfp.h>

struct kmem_cache {
	spinlock_t lock;
	unsigned long size;
	void *free;	/* the first word of a free object points to the next */
};

#define DEFINE_KMEM_CACHE(name, type) static struct kmem_cache name = { .size = sizeof(type) }

void *kmem_cache_zalloc(struct kmem_cache *cache);
void kmem_cache_free(struct kmem_cache *cache, void *object);

#endif
