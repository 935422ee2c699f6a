#ifndef LINUX_MIGRATE_H
#define LINUX_MIGRATE_H

#include <linux/mm.h>

typedef struct page *new_page_t(struct page *page, unsigned long private);

void putback_lru_pages(struct list_head *l);
void putback_movable_pages(struct list_head *l);
int migrate_pages(struct list_head *from, new_page_t get_new_page, unsigned long private, bool offlining, bool sync);
void migrate_prep_local(void);
void migration_entry_wait(struct mm_struct *mm, pmd_t *pmd, unsigned long address);

#endif
