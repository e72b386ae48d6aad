//! Memory.
#![expect(unsafe_code, reason = "functions of a library are called")]

use super::{Cuda, CudaError, Stream, ask, size};

impl Cuda {
    /// Memory that is free on the device, and all of it, bytes.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0, 0);
        ask!(self.cuMemGetInfo_v2(&raw mut free, &raw mut total))?;
        Ok((free as u64, total as u64))
    }

    /// Takes memory on the device.
    ///
    /// # Errors
    /// What the driver answers; 2 when memory is out.
    pub fn alloc(&self, bytes: u64) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAlloc_v2(&raw mut address, size(bytes)))?;
        Ok(address)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free(&self, address: u64) -> Result<(), CudaError> {
        ask!(self.cuMemFree_v2(address))
    }

    /// Takes memory from the device's pool.
    ///
    /// # Errors
    /// What the driver answers; 2 when memory is out.
    pub fn alloc_async(&self, bytes: u64, stream: Stream) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAllocAsync(&raw mut address, size(bytes), stream.0))?;
        Ok(address)
    }

    /// Gives it back to the pool.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free_async(&self, address: u64, stream: Stream) -> Result<(), CudaError> {
        ask!(self.cuMemFreeAsync(address, stream.0))
    }

    /// Takes pinned memory of the host.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn alloc_host(&self, bytes: u64) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAllocHost_v2(&raw mut address, size(bytes)))?;
        Ok(address)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free_host(&self, address: u64) -> Result<(), CudaError> {
        ask!(self.cuMemFreeHost(address))
    }

    /// Reserves addresses, whole pieces of 2 MiB.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn reserve(&self, bytes: u64) -> Result<u64, CudaError> {
        let mut address = 0;
        ask!(self.cuMemAddressReserve(&raw mut address, size(bytes), 0, 0, 0))?;
        Ok(address)
    }

    /// Gives reserved addresses back.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn free_reservation(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        ask!(self.cuMemAddressFree(address, size(bytes)))
    }

    /// Takes physical memory of the first device, whole pieces of 2 MiB. The answer is its handle.
    ///
    /// # Errors
    /// What the driver answers; 2 when memory is out.
    pub fn create(&self, bytes: u64) -> Result<u64, CudaError> {
        // Pinned memory of a device, whose number is 0.
        let properties = [1, 0, 1, 0, 0, 0, 0, 0];
        let mut handle = 0;
        ask!(self.cuMemCreate(&raw mut handle, size(bytes), &raw const properties, 0))?;
        Ok(handle)
    }

    /// Gives a handle back; the memory goes when it is mapped nowhere.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn release(&self, handle: u64) -> Result<(), CudaError> {
        ask!(self.cuMemRelease(handle))
    }

    /// Maps physical memory to reserved addresses.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn map(&self, address: u64, bytes: u64, handle: u64) -> Result<(), CudaError> {
        ask!(self.cuMemMap(address, size(bytes), 0, handle, 0))
    }

    /// Ends mappings.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn unmap(&self, address: u64, bytes: u64) -> Result<(), CudaError> {
        ask!(self.cuMemUnmap(address, size(bytes)))
    }
}
