//! One look at the driver, for a person who wants to know whether it can be used.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nvml_wrapper::Nvml;

use super::refusal::{Missing, no_thread};

/// A driver that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its version; unknown when it does not say.
    pub version: Option<String>,
    /// Its devices.
    pub devices: Vec<Card>,
}

/// A device as the driver names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The UUID.
    pub uuid: Option<String>,
    /// The product.
    pub name: Option<String>,
    /// Whether it is cut into MIG instances.
    pub is_mig: bool,
    /// How many processes use it; unknown when the driver does not say.
    pub processes: Option<usize>,
    /// Whether the driver tells what each process holds; unknown while there is none.
    pub tells_memory: Option<bool>,
}

/// Starts the driver's library, asks who is there, and stops it. A driver that hangs is left behind after `patience`.
///
/// # Errors
/// Why there is no driver to ask, as one sentence.
pub fn look(library: &Path, patience: Duration) -> Result<Driver, String> {
    let (answer, answered) = mpsc::channel();
    let path = library.to_owned();
    let asking = thread::Builder::new()
        .name("plimsoll-look".to_owned())
        .spawn(move || {
            // Nobody waits any more when it took too long.
            let _unheard = answer.send(ask(&path));
        });
    let missing = match asking {
        Ok(_) => match answered.recv_timeout(patience) {
            Ok(Ok(driver)) => return Ok(driver),
            Ok(Err(missing)) => missing,
            Err(_) => Missing::Hangs(patience),
        },
        Err(error) => no_thread(&error),
    };
    Err(missing.message(library))
}

fn ask(library: &Path) -> Result<Driver, Missing> {
    let nvml = Nvml::builder()
        .lib_path(library.as_os_str())
        .init()
        .map_err(|error| Missing::of(&error))?;
    let count = nvml.device_count().map_err(|error| Missing::of(&error))?;
    let devices = (0..count).map(|index| card(&nvml, index)).collect();
    Ok(Driver {
        version: nvml.sys_driver_version().ok(),
        devices,
    })
}

fn card(nvml: &Nvml, index: u32) -> Card {
    let Ok(device) = nvml.device_by_index(index) else {
        return Card {
            uuid: None,
            name: None,
            is_mig: false,
            processes: None,
            tells_memory: None,
        };
    };
    let processes = device.running_compute_processes().ok();
    let tells = |list: &Vec<nvml_wrapper::struct_wrappers::device::ProcessInfo>| {
        list.iter().any(|process| {
            matches!(
                process.used_gpu_memory,
                nvml_wrapper::enums::device::UsedGpuMemory::Used(_)
            )
        })
    };
    Card {
        uuid: device.uuid().ok(),
        name: device.name().ok(),
        is_mig: device.mig_mode().is_ok_and(|mode| mode.current != 0),
        tells_memory: processes.as_ref().filter(|list| !list.is_empty()).map(tells),
        processes: processes.map(|list| list.len()),
    }
}
