#ifndef LINUX_PAGEVEC_H
#define LINUX_PAGEVEC_H

#define PAGEVEC_SIZE 14

struct pagevec {
	unsigned long nr;
	struct page *pages[PAGEVEC_SIZE];
};

static inline void pagevec_init(struct pagevec *pvec)
{
	pvec->nr = 0;
}

/* Returns the room left after adding. */
static inline unsigned pagevec_add(struct pagevec *pvec, struct page *page)
{
	pvec->pages[pvec->nr++] = page;
	return PAGEVEC_SIZE - pvec->nr;
}

#endif
