//! `/proc/PID/cgroup`: one line per hierarchy, `ID:CONTROLLERS:PATH`. Version 2 is the line with id 0 and no
//! controllers; on hybrid hosts it may be the bare root while version 1 holds the truth.

/// The one path that says most: of version 2, else of systemd's own hierarchy, else of any controller, as long as it
/// is not the root; the root when nothing else is there.
pub(crate) fn path(text: &str) -> Option<&str> {
    let mut best: Option<(u8, &str)> = None;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let rank = match (id, controllers) {
            _ if !path.starts_with('/') => continue,
            _ if path == "/" => 0,
            ("0", "") => 3,
            (_, "name=systemd") => 2,
            _ => 1,
        };
        if best.is_none_or(|(former, _)| rank > former) {
            best = Some((rank, path));
        }
    }
    best.map(|(_, path)| path)
}

/// The container ids in a cgroup path, outermost first. The shapes in the wild, by driver:
/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope` (systemd),
/// `docker/ID`, `kubepods/burstable/podUID/ID` (cgroupfs) and `…slice:cri-containerd:ID` (mixed up).
pub(crate) fn containers(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let (program, id) = part.rsplit_once(['-', ':']).unwrap_or(("", part));
        // Podman and CRI-O give the process that watches a container a scope of its own, outside the container.
        let watcher = program.ends_with("conmon");
        (id.len() == 64 && is_id(id) && !watcher).then_some(id)
    })
}

/// Whether this can be a container id or the beginning of one.
pub(crate) fn is_id(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the path is that of a systemd unit or lies below it.
pub(crate) fn is_in_unit(path: &str, unit: &str) -> bool {
    path.split('/').any(|part| part == unit)
}

/// Whether the path ends with `suffix`, whole components only; a slash in front of the suffix changes nothing.
pub(crate) fn ends_with(path: &str, suffix: &str) -> bool {
    let suffix = suffix.trim_matches('/');
    path.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "b84291b22d941906f4f4a88fb7c1770cb84291b22d941906f4f4a88fb7c1770c";

    #[test]
    fn the_path_that_says_most() {
        for (text, expected) in [
            ("0::/system.slice/x.service\n", Some("/system.slice/x.service")),
            ("0::/\n", Some("/")),
            ("9:name=systemd:/a\n4:memory:/b\n0::/\n", Some("/a")),
            ("9:name=systemd:/\n4:memory:/b:c\n0::/\n", Some("/b:c")),
            ("9:name=systemd:/a\n0::/u\n", Some("/u")),
            ("12:cpu,cpuacct:/x\n", Some("/x")),
            ("", None),
            ("no colons\n0:\n1::relative\n", None),
        ] {
            assert_eq!(path(text), expected, "{text}");
        }
    }

    #[test]
    fn container_ids_of_every_runtime() {
        for path in [
            "/system.slice/docker-{ID}.scope",
            "/docker/{ID}",
            "/docker/{ID}/init.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f.slice/cri-containerd-{ID}.scope",
            "/kubepods/besteffort/pod6d9e7f9e-7a36-4b4d-a0cf-2d3a9c1f5e11/{ID}",
            "/kubepods-besteffort.slice:cri-containerd:{ID}",
            "/machine.slice/libpod-{ID}.scope/container",
            "/kubepods.slice/crio-{ID}.scope",
        ] {
            let path = path.replace("{ID}", ID);
            assert_eq!(containers(&path).collect::<Vec<_>>(), [ID], "{path}");
        }
        for path in [
            "/",
            "/user.slice/user-1000.slice/session-3.scope",
            "/system.slice/x.service",
            "/machine.slice/libpod-conmon-{ID}.scope",
            "/docker/b84291b22d94",
            "/docker/{ID}0",
        ] {
            assert_eq!(containers(&path.replace("{ID}", ID)).next(), None, "{path}");
        }
        let inner = ID.replace('b', "c");
        let nested = format!("/docker/{ID}/docker/{inner}");
        assert_eq!(containers(&nested).collect::<Vec<_>>(), [ID, &inner]);
    }

    #[test]
    fn units_and_suffixes_match_whole_components() {
        let path = "/system.slice/system-vllm.slice/vllm@chat.service/worker";
        assert!(is_in_unit(path, "vllm@chat.service") && !is_in_unit(path, "chat.service"));
        assert!(ends_with(path, "vllm@chat.service/worker") && ends_with(path, "/worker"));
        assert!(!ends_with(path, "orker") && !ends_with(path, "chat.service/worker"));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[ -~\n/:é]{0,120}", part in ".{0,20}") {
            if let Some(path) = path(&text) {
                prop_assert!(path.starts_with('/'));
            }
            prop_assert!(containers(&text).all(|id| id.len() == 64));
            let _ = (is_in_unit(&text, &part), ends_with(&text, &part));
        }
    }
}
