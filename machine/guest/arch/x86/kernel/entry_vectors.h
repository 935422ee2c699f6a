/* The entry points, by the macros of entry_32.S or entry_64.S: vector, handler, whether the CPU pushes an error code. */
	EXCEPTION 0, do_unexpected, 0
	EXCEPTION 1, do_unexpected, 0
	EXCEPTION 2, do_unexpected, 0
	EXCEPTION 3, do_unexpected, 0
	EXCEPTION 4, do_unexpected, 0
	EXCEPTION 5, do_unexpected, 0
	EXCEPTION 6, do_invalid_op, 0
	EXCEPTION 7, do_unexpected, 0
	EXCEPTION 8, do_unexpected, 1
	EXCEPTION 9, do_unexpected, 0
	EXCEPTION 10, do_unexpected, 1
	EXCEPTION 11, do_unexpected, 1
	EXCEPTION 12, do_unexpected, 1
	EXCEPTION 13, do_unexpected, 1
	EXCEPTION 14, do_page_fault, 1
	EXCEPTION 15, do_unexpected, 0
	EXCEPTION 16, do_unexpected, 0
	EXCEPTION 17, do_unexpected, 1
	EXCEPTION 18, do_unexpected, 0
	EXCEPTION 19, do_unexpected, 0

	INTERRUPT apic_timer_interrupt, LOCAL_TIMER_VECTOR
#ifdef CONFIG_SMP
	INTERRUPT reschedule_interrupt, RESCHEDULE_VECTOR
	/* One entry for each sender: the handler finds the sender by the vector. */
	.globl invalidate_interrupt_entries
	.balign	INVALIDATE_ENTRY_SIZE
invalidate_interrupt_entries:
	.set	sender, 0
	.rept	NUM_INVALIDATE_TLB_VECTORS
	.balign	INVALIDATE_ENTRY_SIZE
	INTERRUPT_VECTOR INVALIDATE_TLB_VECTOR_START + sender, smp_invalidate_interrupt
	.set	sender, sender + 1
	.endr
#endif
