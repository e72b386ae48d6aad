//! The devices that a start of the driver finds, and which of them may be touched.

use nvml_wrapper::Nvml;
use plimsoll_trace::DeviceId;

use super::activity::{Abandoned, Pace};
use super::gpu::Gpu;
use super::ledger::Caution;
use super::worker::World;
use super::xid::Xids;

/// Opens every device that may be touched; answers also how many do not tell who they are.
///
/// A device in which a thread hangs is known by its UUID. But to ask for that might hang as well, so its index is asked last,
/// and only if the others show that the indexes have moved.
pub(super) fn open_all<'n>(
    nvml: &'n Nvml,
    world: &World,
    driver: Option<&str>,
    count: u32,
    xids: Option<&Xids<'n>>,
) -> Result<(Vec<Gpu<'n>>, usize), Abandoned> {
    let (mut gpus, mut silent): (Vec<Gpu<'n>>, usize) = (Vec::new(), 0);
    let mut asked: Vec<(DeviceId, u32)> = Vec::new();
    for turn in [Caution::None, Caution::Last] {
        if turn == Caution::Last && !world.ledger().has_moved(&asked) {
            break;
        }
        for index in 0..count {
            if world.ledger().caution(index) != turn {
                continue;
            }
            let opened = world.at_device(index, None, Pace::Start, || {
                Gpu::open(nvml.device_by_index(index)?, index, driver, None)
            })?;
            match opened {
                Ok(gpu) => {
                    asked.push((gpu.id().clone(), index));
                    if world.ledger().is_hung(gpu.id()) {
                        continue;
                    }
                    if let Some(xids) = xids {
                        world.at_device(index, Some(gpu.id()), Pace::Start, || xids.watch(&gpu))?;
                    }
                    gpus.push(gpu);
                }
                Err(error) => {
                    tracing::debug!(index, %error, "a device does not tell who it is");
                    silent += 1;
                }
            }
        }
    }
    gpus.sort_unstable_by_key(Gpu::index);
    Ok((gpus, silent))
}
