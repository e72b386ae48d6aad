//! Which device a number stands for. The driver is asked, never loaded: it is in the process, or there is nothing to ask.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_void};

use cupti_sys::Library;
use plimsoll_trace::wire::Frame;

// SAFETY, of all calls: each place that is written to is the caller's, as CUDA's documentation of the functions asks.
type DeviceGet = unsafe extern "C" fn(device: *mut c_int, ordinal: c_int) -> c_int;
type DeviceGetUuid = unsafe extern "C" fn(uuid: *mut [u8; 16], device: c_int) -> c_int;

/// How often the driver is asked about a device that it does not know.
const TRIES: u8 = 10;

/// The devices that records named.
#[derive(Debug)]
pub(crate) struct Devices {
    driver: Option<(DeviceGet, DeviceGetUuid)>,
    known: BTreeMap<u32, Device>,
}

#[derive(Debug, Default)]
struct Device {
    uuid: Option<[u8; 16]>,
    tries: u8,
    is_told: bool,
}

impl Devices {
    pub(crate) fn of(library: Option<&Library>) -> Self {
        Self {
            driver: find_driver(library),
            known: BTreeMap::new(),
        }
    }

    /// A bit for each device below 64 that a record named.
    pub(crate) fn see(&mut self, mut bits: u64) {
        while bits != 0 {
            self.known.entry(bits.trailing_zeros()).or_default();
            bits &= bits - 1;
        }
    }

    /// Hands each device that has not been told to `tell`.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(&Frame) -> bool) {
        for (index, device) in self.known.iter_mut().filter(|(_, device)| !device.is_told) {
            if device.uuid.is_none() && device.tries < TRIES {
                device.tries += 1;
                device.uuid = self.driver.and_then(|driver| uuid(driver, *index));
            }
            if let Some(uuid) = device.uuid {
                device.is_told = tell(&Frame::Device { index: *index, uuid });
            }
        }
    }

    /// There is a new listener.
    pub(crate) fn tell_again(&mut self) {
        self.known.values_mut().for_each(|device| device.is_told = false);
    }
}

fn uuid((get, get_uuid): (DeviceGet, DeviceGetUuid), index: u32) -> Option<[u8; 16]> {
    let (mut device, mut uuid) = (0, [0; 16]);
    let ordinal = c_int::try_from(index).ok()?;
    // SAFETY: both write to locals; the driver answers an error for what it does not know.
    let done = unsafe { get(&raw mut device, ordinal) == 0 && get_uuid(&raw mut uuid, device) == 0 };
    done.then_some(uuid)
}

/// The driver that the process has: by its name, or as part of what CUPTI is in.
fn find_driver(library: Option<&Library>) -> Option<(DeviceGet, DeviceGetUuid)> {
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
    // SAFETY: nothing is loaded; a driver that is there already stays.
    let driver = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), flags) };
    let find = |name: &CStr| {
        let mut found = std::ptr::null_mut::<c_void>();
        if !driver.is_null() {
            // SAFETY: the handle is open and the name is a C string.
            found = unsafe { libc::dlsym(driver, name.as_ptr()) };
        }
        if found.is_null() {
            // SAFETY: looks in what the program itself linked.
            found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        }
        if found.is_null() {
            found = library?.symbol(name.to_str().ok()?);
        }
        (!found.is_null()).then_some(found)
    };
    let get = find(c"cuDeviceGet")?;
    let get_uuid = find(c"cuDeviceGetUuid_v2").or_else(|| find(c"cuDeviceGetUuid"))?;
    // SAFETY: these are the driver's functions of these names, which have these signatures.
    unsafe {
        Some((
            std::mem::transmute::<*mut c_void, DeviceGet>(get),
            std::mem::transmute::<*mut c_void, DeviceGetUuid>(get_uuid),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: as unsafe as what it stands for; called with a place to write to.
    unsafe extern "C" fn get(device: *mut c_int, ordinal: c_int) -> c_int {
        // SAFETY: called with a place to write to.
        unsafe { *device = ordinal + 100 };
        0
    }

    // SAFETY: the same.
    unsafe extern "C" fn get_uuid(uuid: *mut [u8; 16], device: c_int) -> c_int {
        if device != 101 {
            return 101;
        }
        // SAFETY: as above.
        unsafe { *uuid = [7; 16] };
        0
    }

    #[test]
    fn each_device_is_told_once_to_each_listener() {
        let mut devices = Devices {
            driver: Some((get, get_uuid)),
            known: BTreeMap::new(),
        };
        devices.see(0b111);
        let mut told = Vec::new();
        let mut tell = |devices: &mut Devices, taken: bool| {
            told.clear();
            devices.tell(|frame| {
                told.push(frame.clone());
                taken
            });
            told.clone()
        };
        let frame = Frame::Device {
            index: 1,
            uuid: [7; 16],
        };
        assert_eq!(tell(&mut devices, false), std::slice::from_ref(&frame));
        assert_eq!(tell(&mut devices, true), std::slice::from_ref(&frame));
        assert!(tell(&mut devices, true).is_empty());
        devices.tell_again();
        assert_eq!(tell(&mut devices, true), [frame]);
        assert_eq!(devices.known[&0].tries, 4);
    }
}
