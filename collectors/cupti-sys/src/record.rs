//! The beginnings of activity records that CUPTI 11.8 to 13.5 share. Times are ns of CUPTI's clock; names and addresses
//! are addresses in this process.
//!
//! Each struct ends where all these versions still agree and where the fields that are wanted end. What came later is read
//! with [`crate::Record::field`] at an offset of [`later`].

/// The beginning of a record.
///
/// # Safety
/// Every pattern of bytes must be a valid value.
pub unsafe trait Prefix: Copy {}

macro_rules! prefixes {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            pub struct $name { $($(#[$doc])* pub $field: $type,)+ }

            // SAFETY: made of integers alone.
            unsafe impl Prefix for $name {}
        )+
    };
}

prefixes! {
    /// A kernel (`CONCURRENT_KERNEL`).
    Kernel {
        /// The record's kind.
        kind: u32,
        /// Cache settings.
        cache_config: [u8; 2],
        /// Registers of each thread.
        registers_per_thread: u16,
        /// Settings that nothing here reads.
        partitioned: [u32; 2],
        /// When it began.
        start: u64,
        /// When it ended.
        end: u64,
        /// When its children had ended; 0 where unknown.
        completed: u64,
        /// The device's number.
        device: u32,
        /// The context's number.
        context: u32,
        /// The stream's number.
        stream: u32,
        /// Blocks in x, y, z.
        grid: [u32; 3],
        /// Threads in x, y, z.
        block: [u32; 3],
        /// Static shared memory, bytes.
        static_shared: u32,
        /// Dynamic shared memory, bytes.
        dynamic_shared: u32,
        /// Local memory of each thread, bytes.
        local_per_thread: u32,
        /// Local memory altogether, bytes.
        local_total: u32,
        /// The launch's number.
        correlation: u32,
        /// The grid's number.
        grid_id: i64,
        /// Where its name is, a C string.
        name: u64,
    }

    /// A copy (`MEMCPY`).
    Memcpy {
        /// The record's kind.
        kind: u32,
        /// One of [`crate::constant::copy_kind`].
        copy_kind: u8,
        /// Where from, one of [`crate::constant::memory_kind`].
        source_kind: u8,
        /// Where to, likewise.
        target_kind: u8,
        /// Flags.
        flags: u8,
        /// How much.
        bytes: u64,
        /// When it began.
        start: u64,
        /// When it ended.
        end: u64,
        /// The device's number.
        device: u32,
        /// The context's number.
        context: u32,
        /// The stream's number.
        stream: u32,
        /// The call's number.
        correlation: u32,
    }

    /// A copy between devices (`MEMCPY2`).
    PeerCopy {
        /// The record's kind.
        kind: u32,
        /// As in [`Memcpy`].
        copy_kind: u8,
        /// As in [`Memcpy`].
        source_kind: u8,
        /// As in [`Memcpy`].
        target_kind: u8,
        /// Flags.
        flags: u8,
        /// How much.
        bytes: u64,
        /// When it began.
        start: u64,
        /// When it ended.
        end: u64,
        /// The number of the device that copied.
        device: u32,
        /// The context's number.
        context: u32,
        /// The stream's number.
        stream: u32,
        /// The device copied from.
        source_device: u32,
        /// Its context.
        source_context: u32,
        /// The device copied to.
        target_device: u32,
        /// Its context.
        target_context: u32,
        /// The call's number.
        correlation: u32,
    }

    /// A memset (`MEMSET`).
    Memset {
        /// The record's kind.
        kind: u32,
        /// What was written.
        value: u32,
        /// How much.
        bytes: u64,
        /// When it began.
        start: u64,
        /// When it ended.
        end: u64,
        /// The device's number.
        device: u32,
        /// The context's number.
        context: u32,
        /// The stream's number.
        stream: u32,
        /// The call's number.
        correlation: u32,
        /// Flags.
        flags: u16,
        /// One of [`crate::constant::memory_kind`].
        memory_kind: u16,
    }

    /// An allocation or a release (`MEMORY2`).
    Memory {
        /// The record's kind.
        kind: u32,
        /// One of [`crate::constant::memory_operation`].
        operation: u32,
        /// One of [`crate::constant::memory_kind`].
        memory_kind: u32,
        /// The call's number.
        correlation: u32,
        /// Where it begins.
        address: u64,
        /// How large it is.
        bytes: u64,
        /// When.
        timestamp: u64,
        /// Who called.
        program_counter: u64,
        /// The process.
        process: u32,
        /// The device's number.
        device: u32,
        /// The context's number.
        context: u32,
        /// The stream's number.
        stream: u32,
        /// Of a module's variable.
        name: u64,
        /// Through a stream.
        is_async: u32,
        /// Nothing.
        pad: u32,
        /// Of its pool: one of [`crate::constant::pool_type`], 0 without one.
        pool_type: u32,
        /// Nothing.
        pool_pad: u32,
        /// Of its pool: its address.
        pool_address: u64,
        /// Of its pool: what it keeps at least.
        pool_release_threshold: u64,
        /// Of its pool: what it holds. Of an imported one: whose it is.
        pool_size: u64,
        /// Of its pool: what is in use. Of a local one only.
        pool_used: u64,
    }

    /// A change of a stream-ordered pool (`MEMORY_POOL`).
    MemoryPool {
        /// The record's kind.
        kind: u32,
        /// One of [`crate::constant::pool_operation`].
        operation: u32,
        /// One of [`crate::constant::pool_type`].
        pool_type: u32,
        /// The call's number.
        correlation: u32,
        /// The process.
        process: u32,
        /// The device's number.
        device: u32,
        /// What a trim leaves.
        min_bytes_to_keep: u64,
        /// The pool's address.
        address: u64,
        /// What it holds.
        size: u64,
        /// What it keeps at least.
        release_threshold: u64,
        /// When.
        timestamp: u64,
        /// What is in use. Of a local one only.
        used: u64,
    }

    /// What profiling cost (`OVERHEAD`).
    Overhead {
        /// The record's kind.
        kind: u32,
        /// One of [`crate::constant::overhead_kind`].
        overhead_kind: u32,
        /// What the cost fell on.
        object_kind: u32,
        /// Which one.
        object: [u32; 3],
        /// When it began.
        start: u64,
        /// When it ended.
        end: u64,
    }

    /// A wait (`SYNCHRONIZATION`).
    Synchronization {
        /// The record's kind.
        kind: u32,
        /// For what.
        wait: u32,
        /// When it began.
        start: u64,
        /// When it ended.
        end: u64,
        /// The call's number.
        correlation: u32,
        /// The context's number.
        context: u32,
        /// The stream's number.
        stream: u32,
        /// An event's number.
        event: u32,
    }

    /// The launch of a whole graph (`GRAPH_TRACE`).
    GraphTrace {
        /// The record's kind.
        kind: u32,
        /// The launch's number.
        correlation: u32,
        /// When it began.
        start: u64,
        /// When it ended.
        end: u64,
        /// The device's number.
        device: u32,
        /// The graph's number.
        graph: u32,
        /// The context's number.
        context: u32,
        /// The stream's number.
        stream: u32,
    }
}

/// Offsets of fields after the prefixes, bytes from the record's beginning; each says from which version it is there.
pub mod later {
    /// `u64` of a kernel, 11.8: when it was queued.
    pub const KERNEL_QUEUED: usize = 120;
    /// `u64` of a kernel, 11.8: when it was submitted.
    pub const KERNEL_SUBMITTED: usize = 128;
    /// `u64` of a kernel, 11.8: the node of a graph that it is.
    pub const KERNEL_GRAPH_NODE: usize = 144;
    /// `u32` of a kernel, 11.8: the graph that it is of.
    pub const KERNEL_GRAPH: usize = 156;
    /// `u32` of a kernel, 11.8: the hardware channel.
    pub const KERNEL_CHANNEL: usize = 168;
    /// `u32` of a kernel, 11.8: the cluster's width.
    pub const KERNEL_CLUSTER_X: usize = 176;
    /// `u64` of a kernel, 11.8: local memory altogether, bytes.
    pub const KERNEL_LOCAL_TOTAL: usize = 192;
    /// `u8` of a kernel, 13.0: launched by another kernel.
    pub const KERNEL_DEVICE_LAUNCHED: usize = 208;
    /// `u32` of a kernel, 13.1: its stream's priority.
    pub const KERNEL_PRIORITY: usize = 216;
    /// `u32` of a kernel, 13.3: how it is executed.
    pub const KERNEL_EXECUTION_MODEL: usize = 224;
    /// `u32` of a kernel, 13.4: the graph that its graph was made from.
    pub const KERNEL_SOURCE_GRAPH: usize = 232;
    /// `u64` of a kernel, 13.4: the node there.
    pub const KERNEL_SOURCE_GRAPH_NODE: usize = 240;
    /// `u64` of a copy, 11.8: the node of a graph that it is.
    pub const COPY_GRAPH_NODE: usize = 64;
    /// `u32` of a copy, 11.8: the graph that it is of.
    pub const COPY_GRAPH: usize = 72;
    /// `u64` of an allocation, 12.6: an address of a text that names the caller's library.
    pub const MEMORY_SOURCE: usize = 120;
}
