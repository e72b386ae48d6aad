//! The numbers of CUPTI's enumerations, the same in 11.8 to 13.5.

/// `CUpti_ActivityKind`: what a record is about.
pub mod kind {
    /// A copy.
    pub const MEMCPY: u32 = 1;
    /// A memset.
    pub const MEMSET: u32 = 2;
    /// A call of the driver API.
    pub const DRIVER: u32 = 4;
    /// A call of the runtime API.
    pub const RUNTIME: u32 = 5;
    /// A kernel. (Kind 3 is one too, but makes kernels run one after the other.)
    pub const CONCURRENT_KERNEL: u32 = 10;
    /// What profiling itself cost.
    pub const OVERHEAD: u32 = 17;
    /// A copy between devices; delivered only while [`MEMCPY`] is enabled too.
    pub const MEMCPY2: u32 = 22;
    /// A wait.
    pub const SYNCHRONIZATION: u32 = 38;
    /// A foreign number for a range of calls.
    pub const EXTERNAL_CORRELATION: u32 = 39;
    /// An allocation or a release.
    pub const MEMORY2: u32 = 49;
    /// A change of a stream-ordered pool.
    pub const MEMORY_POOL: u32 = 50;
    /// The launch of a whole graph. Once enabled, the graph's nodes are not recorded any more.
    pub const GRAPH_TRACE: u32 = 51;
}

/// `CUpti_ActivityMemoryKind`.
pub mod memory_kind {
    /// Of the host, pageable.
    pub const PAGEABLE: u32 = 1;
    /// Of the host, pinned.
    pub const PINNED: u32 = 2;
    /// Of the device.
    pub const DEVICE: u32 = 3;
    /// An array of the device.
    pub const ARRAY: u32 = 4;
    /// Moved by the driver.
    pub const MANAGED: u32 = 5;
    /// A device variable of a module.
    pub const DEVICE_STATIC: u32 = 6;
    /// A managed variable of a module.
    pub const MANAGED_STATIC: u32 = 7;
}

/// `CUpti_ActivityMemoryOperationType`.
pub mod memory_operation {
    /// Taken.
    pub const ALLOCATION: u32 = 1;
    /// Given back.
    pub const RELEASE: u32 = 2;
}

/// `CUpti_ActivityMemoryPoolOperationType`.
pub mod pool_operation {
    /// The pool was made.
    pub const CREATED: u32 = 1;
    /// It was destroyed.
    pub const DESTROYED: u32 = 2;
    /// It gave memory back.
    pub const TRIMMED: u32 = 3;
}

/// `CUpti_ActivityMemoryPoolType`.
pub mod pool_type {
    /// This process's own.
    pub const LOCAL: u32 = 1;
    /// Another process's.
    pub const IMPORTED: u32 = 2;
}

/// `CUpti_ActivityMemcpyKind`.
pub mod copy_kind {
    /// Host to device.
    pub const HTOD: u8 = 1;
    /// Device to host.
    pub const DTOH: u8 = 2;
    /// Host to an array of the device.
    pub const HTOA: u8 = 3;
    /// An array of the device to the host.
    pub const ATOH: u8 = 4;
    /// Array to array.
    pub const ATOA: u8 = 5;
    /// Array to device.
    pub const ATOD: u8 = 6;
    /// Device to array.
    pub const DTOA: u8 = 7;
    /// Within the device.
    pub const DTOD: u8 = 8;
    /// Within the host.
    pub const HTOH: u8 = 9;
    /// From one device to another.
    pub const PTOP: u8 = 10;
}

/// `CUpti_ActivityOverheadKind`.
pub mod overhead_kind {
    /// The driver compiled a kernel.
    pub const COMPILER: u32 = 1;
    /// CUPTI brought its buffers in.
    pub const BUFFER_FLUSH: u32 = 1 << 16;
    /// CUPTI changed a kernel's code.
    pub const INSTRUMENTATION: u32 = 2 << 16;
    /// CUPTI made or destroyed resources of its own.
    pub const RESOURCE: u32 = 3 << 16;
}

/// `CUpti_ActivityAttribute`.
pub mod attribute {
    /// Bytes of one of CUPTI's buffers on the device, `size_t`.
    pub const DEVICE_BUFFER_SIZE: u32 = 0;
    /// How many of them there are at most per context, `size_t`.
    pub const DEVICE_BUFFER_POOL_LIMIT: u32 = 2;
    /// The buffers handed out are zeroed already, `uint8_t`.
    pub const ZEROED_OUT_ACTIVITY_BUFFER: u32 = 5;
    /// How many buffers on the device a new context gets at once, `size_t`.
    pub const DEVICE_BUFFER_PRE_ALLOCATE: u32 = 6;
    /// Each thread fills buffers of its own, `uint8_t`.
    pub const PER_THREAD_ACTIVITY_BUFFER: u32 = 9;
}

/// `CUpti_CallbackDomain`: whose calls a callback is about.
pub mod domain {
    /// The driver API's.
    pub const DRIVER_API: u32 = 1;
}

/// `CUpti_ApiCallbackSite`: which side of a call a callback is on.
pub mod site {
    /// Before it.
    pub const ENTER: u32 = 0;
    /// After it.
    pub const EXIT: u32 = 1;
}

/// `CUpti_driver_api_trace_cbid`: the calls of the driver API.
pub mod driver_call {
    #![expect(missing_docs, reason = "each has the name of its function")]
    pub const MEM_ALLOC_V2: u32 = 243;
    pub const MEM_FREE_V2: u32 = 245;
    pub const LAUNCH_KERNEL: u32 = 307;
    pub const LAUNCH_KERNEL_PTSZ: u32 = 442;
    pub const GRAPH_LAUNCH: u32 = 514;
    pub const GRAPH_LAUNCH_PTSZ: u32 = 515;
    pub const MEM_ADDRESS_RESERVE: u32 = 547;
    pub const MEM_ADDRESS_FREE: u32 = 548;
    pub const MEM_CREATE: u32 = 549;
    pub const MEM_RELEASE: u32 = 550;
    pub const MEM_MAP: u32 = 551;
    pub const MEM_UNMAP: u32 = 552;
    pub const MEM_SET_ACCESS: u32 = 553;
    pub const MEM_ALLOC_ASYNC: u32 = 598;
    pub const MEM_ALLOC_ASYNC_PTSZ: u32 = 599;
    pub const MEM_ALLOC_FROM_POOL_ASYNC: u32 = 611;
    pub const MEM_ALLOC_FROM_POOL_ASYNC_PTSZ: u32 = 612;
    pub const LAUNCH_KERNEL_EX: u32 = 652;
    pub const LAUNCH_KERNEL_EX_PTSZ: u32 = 653;
}

/// `cuptiActivityFlushAll`'s flag that brings unfinished records too, with zeros in them, and consumes them.
pub const FLUSH_FORCED: u32 = 1;
