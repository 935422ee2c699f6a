/* Circular doubly linked lists. Plain stores, in the order of Linux's: next->prev, new->next, new->prev, prev->next. */
#ifndef LINUX_LIST_H
#define LINUX_LIST_H

#include <linux/types.h>

/* Whoever follows them faults: nothing is ever mapped there, and on x86-64 the address is not even canonical. */
#ifdef CONFIG_X86_64
#define POISON_POINTER_DELTA 0xdead000000000000UL
#else
#define POISON_POINTER_DELTA 0
#endif
#define LIST_POISON1 ((struct list_head *)(0x00100100 + POISON_POINTER_DELTA))
#define LIST_POISON2 ((struct list_head *)(0x00200200 + POISON_POINTER_DELTA))

#define LIST_HEAD_INIT(name) { &(name), &(name) }
#define LIST_HEAD(name) struct list_head name = LIST_HEAD_INIT(name)

static inline void INIT_LIST_HEAD(struct list_head *list)
{
	list->next = list;
	list->prev = list;
}

static inline void __list_add(struct list_head *entry, struct list_head *prev, struct list_head *next)
{
	next->prev = entry;
	entry->next = next;
	entry->prev = prev;
	prev->next = entry;
}

static inline void list_add(struct list_head *entry, struct list_head *head)
{
	__list_add(entry, head, head->next);
}

static inline void list_add_tail(struct list_head *entry, struct list_head *head)
{
	__list_add(entry, head->prev, head);
}

static inline void __list_del(struct list_head *prev, struct list_head *next)
{
	next->prev = prev;
	prev->next = next;
}

static inline void list_del(struct list_head *entry)
{
	__list_del(entry->prev, entry->next);
	entry->next = LIST_POISON1;
	entry->prev = LIST_POISON2;
}

static inline void list_del_init(struct list_head *entry)
{
	__list_del(entry->prev, entry->next);
	INIT_LIST_HEAD(entry);
}

static inline void list_move(struct list_head *entry, struct list_head *head)
{
	__list_del(entry->prev, entry->next);
	list_add(entry, head);
}

static inline void list_move_tail(struct list_head *entry, struct list_head *head)
{
	__list_del(entry->prev, entry->next);
	list_add_tail(entry, head);
}

static inline bool list_empty(const struct list_head *head)
{
	return head->next == head;
}

/* Move everything on `list` to the front of `head`; `list` is left empty. */
static inline void list_splice_init(struct list_head *list, struct list_head *head)
{
	if (list_empty(list))
		return;
	struct list_head *first = list->next, *last = list->prev, *at = head->next;
	first->prev = head;
	head->next = first;
	last->next = at;
	at->prev = last;
	INIT_LIST_HEAD(list);
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_first_entry(head, type, member) list_entry((head)->next, type, member)

#define list_for_each_entry(pos, head, member)						\
	for (pos = list_entry((head)->next, typeof(*pos), member);			\
	     &pos->member != (head);							\
	     pos = list_entry(pos->member.next, typeof(*pos), member))

#define list_for_each_entry_safe(pos, after, head, member)				\
	for (pos = list_entry((head)->next, typeof(*pos), member),			\
	     after = list_entry(pos->member.next, typeof(*pos), member);		\
	     &pos->member != (head);							\
	     pos = after, after = list_entry(after->member.next, typeof(*after), member))

#endif
