/* Fixed-size objects, a page at a time: what the guest needs of a slab allocator. Pages are never given back. */
#include <linux/mm.h>
#include <linux/slab.h>

static bool refill(struct kmem_cache *cache)
{
	unsigned long page = __get_free_pages(GFP_KERNEL, 0);
	unsigned long flags;

	if (!page)
		return false;
	spin_lock_irqsave(&cache->lock, flags);
	/* A quarter of the page is plenty, and keeps the free list short to build. */
	for (unsigned long at = page; at + cache->size <= page + PAGE_SIZE / 4; at += cache->size) {
		*(void **)at = cache->free;
		cache->free = (void *)at;
	}
	spin_unlock_irqrestore(&cache->lock, flags);
	return true;
}

void *kmem_cache_zalloc(struct kmem_cache *cache)
{
	unsigned long flags;

	do {
		spin_lock_irqsave(&cache->lock, flags);
		void *object = cache->free;
		if (object)
			cache->free = *(void **)object;
		spin_unlock_irqrestore(&cache->lock, flags);
		if (object)
			return memset(object, 0, cache->size);
	} while (refill(cache));
	return NULL;
}

void kmem_cache_free(struct kmem_cache *cache, void *object)
{
	unsigned long flags;

	spin_lock_irqsave(&cache->lock, flags);
	*(void **)object = cache->free;
	cache->free = object;
	spin_unlock_irqrestore(&cache->lock, flags);
}
