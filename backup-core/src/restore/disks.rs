//! On which disks a restore makes volumes again whose data the backup does not have: those that are free, in the cluster of which the backup was made. A disk that two volumes, or two clusters,
//! write to is destroyed by them. Shares, which are there for many, are made anywhere: they are file systems that no access mode gives to one node alone.
//!
//! It looks once, at the identity of the target and at its volumes, and judges by that; a claim whose volume is left out goes on to name it, and waits.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::error::{Kind, Result};

use super::held::each;

/// The end of each reason: nothing is bound in the volume's place meanwhile.
const WAITS: &str = "its claim waits for it";

/// What the target says.
#[derive(Clone, Debug, Default)]
pub(super) struct Disks {
    /// Half a sentence about the cluster of the backup, where the target is, or may be, another one.
    other: Option<String>,
    /// The volumes of the target, by their disks. Who may not list them makes none either, as a rule: the server says so.
    taken: HashMap<String, String>,
    /// The names of all of them: one that stands is not made, and nothing is refused of it.
    standing: HashSet<String>,
}

impl Disks {
    /// Looks at the target; `of` is the uid of the cluster of which the backup was made, which those of other tools do not tell.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn look(cluster: &Cluster, of: Option<&str>, adopt: bool) -> Result<Self> {
        let mut disks = Self::default();
        if let Some(of) = of.filter(|_| !adopt) {
            // Where the uid may not be read, nothing is taken for another cluster.
            let here = cluster.identity().await?;
            disks.other = here
                .filter(|here| here != of)
                .map(|_| format!("it was a volume of another cluster, {of}"));
        }
        let looked = each(cluster, "/api/v1/persistentvolumes", None, |volume| {
            let name = volume["metadata"]["name"].as_str();
            let Some(name) = name else { return };
            for disk in self::disks(&volume["spec"]) {
                disks.taken.insert(disk, name.to_owned());
            }
            disks.standing.insert(name.to_owned());
        })
        .await;
        match looked {
            Err(e) if e.kind() == Kind::Forbidden => {}
            looked => looked?,
        }
        Ok(disks)
    }

    /// Whether it is for the sake of its disk that a volume is left out, as this reason says.
    pub(super) fn keeps_back(&self, reason: &str) -> bool {
        reason.ends_with(WAITS)
    }

    /// Why a volume whose data is not in the backup is not made on its disk.
    pub(super) fn refuse(&self, name: &str, spec: &Value) -> Option<String> {
        if is_for_many(spec) || self.standing.contains(name) {
            return None;
        }
        if let Some(other) = &self.other {
            return Some(format!(
                "{other}: two clusters that write to one disk destroy it. Where that cluster is gone for good, --adopt-volumes makes the volume, and with --adopt-volumes=false the claim is provisioned anew; {WAITS}"
            ));
        }
        if is_share(spec) {
            return None;
        }
        let named = disks(spec).into_iter();
        let mut held = named.filter_map(|disk| Some((self.taken.get(&disk)?, disk)));
        let (holder, disk) = held.next()?;
        Some(format!(
            "its disk {disk} is that of volume {holder} here; {WAITS}"
        ))
    }
}

/// Drivers whose volumes are file systems of a server, whatever access modes they are given: prefixes of a driver's name stand before a dot.
const SHARES: [&str; 9] = [
    "blob.csi.azure.com",
    "cephfs.csi.ceph.com",
    "cephfs.manila.csi.openstack.org",
    "efs.csi.aws.com",
    "file.csi.azure.com",
    "filestore.csi.storage.gke.io",
    "nfs.csi.k8s.io",
    "nfs.manila.csi.openstack.org",
    "smb.csi.k8s.io",
];

/// The same of before there were drivers.
const SHARED: [&str; 4] = ["azureFile", "cephfs", "glusterfs", "nfs"];

/// Whether it is a file system that no access mode gives to one node alone: there for many, whichever cluster they are of.
fn is_for_many(spec: &Value) -> bool {
    // Two that write to one block device destroy it, however many may attach it.
    let modes = spec["accessModes"].as_array();
    let is_many = |mode: &Value| mode.as_str().is_some_and(|mode| mode.ends_with("Many"));
    spec["volumeMode"] != "Block"
        && modes.is_some_and(|modes| !modes.is_empty() && modes.iter().all(is_many))
}

/// Whether it is a share by its kind. What programs that count on being alone keep in it, two of them destroy all the same: that is asked of another cluster.
fn is_share(spec: &Value) -> bool {
    let driver = spec["csi"]["driver"].as_str().unwrap_or_default();
    let is_of = |share: &&str| {
        let before = driver.strip_suffix(*share);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    spec["volumeMode"] != "Block"
        && (SHARES.iter().any(is_of) || SHARED.iter().any(|kind| spec[*kind].is_object()))
}

/// What volumes had before there were drivers, and the driver that has it now, by whose name one disk is the same disk in both.
const BEFORE: [(&str, &str, &str); 6] = [
    ("awsElasticBlockStore", "volumeID", "ebs.csi.aws.com"),
    ("azureDisk", "diskURI", "disk.csi.azure.com"),
    ("cinder", "volumeID", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pdName", "pd.csi.storage.gke.io"),
    ("portworxVolume", "volumeID", "pxd.portworx.com"),
    ("vsphereVolume", "volumePath", "csi.vsphere.vmware.com"),
];

/// A handle as each who names the disk writes it.
fn handle(driver: &str, handle: &str) -> String {
    let handle = match driver {
        // aws://ZONE/ID before, and projects/P/zones/Z/disks/NAME now, where the former knows no project: a disk of that name in another zone counts as the same.
        "ebs.csi.aws.com" | "pd.csi.storage.gke.io" => {
            handle.rsplit('/').next().unwrap_or(handle).to_owned()
        }
        // Azure does not tell letters apart.
        "disk.csi.azure.com" => handle.to_lowercase(),
        _ => handle.to_owned(),
    };
    format!("{driver} {handle}").trim().to_owned()
}

/// What a volume stands on, by each of the names that it has: a driver's handle, or the ids of a disk as volumes had them before there were drivers. A path is no id: it is
/// another one on each node.
fn disks(spec: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(of) = spec["csi"]["volumeHandle"].as_str() {
        return vec![handle(&text(&spec["csi"]["driver"]), of)];
    }
    for (kind, id, driver) in BEFORE {
        if let Some(id) = spec[kind][id].as_str() {
            return vec![handle(driver, id)];
        }
    }
    let all = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.map(text).collect()
    };
    let (iscsi, fc, rbd) = (&spec["iscsi"], &spec["fc"], &spec["rbd"]);
    if let Some(target) = iscsi["iqn"].as_str() {
        // A target has its name in the whole world, however many portals lead to it.
        return vec![format!("iscsi {target} lun {}", iscsi["lun"])];
    }
    if fc.is_object() {
        let units = all(&fc["wwids"]).into_iter();
        let units = units.map(|id| format!("fc {}", id.to_lowercase()));
        let ports = all(&fc["targetWWNs"]).into_iter();
        let ports = ports.map(|port| format!("fc {} lun {}", port.to_lowercase(), fc["lun"]));
        return units.chain(ports).collect();
    }
    if let Some(image) = rbd["image"].as_str() {
        // Of one storage as far as a monitor of it is named by both.
        let pool = rbd["pool"].as_str().unwrap_or("rbd");
        let monitors = all(&rbd["monitors"]).into_iter();
        return monitors
            .map(|monitor| format!("rbd {pool}/{image} at {monitor}"))
            .collect();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn on(handle: &str) -> Value {
        json!({"csi": {"driver": "d", "volumeHandle": handle}})
    }

    #[test]
    fn a_volume_is_made_on_a_free_disk_of_its_own_cluster_alone() {
        let mut disks = Disks::default();
        disks.taken.insert("d one".to_owned(), "mine".to_owned());
        disks.standing.insert("mine".to_owned());
        assert_eq!(disks.refuse("mine", &on("one")), None, "it is that one");
        let told = disks.refuse("other", &on("one")).unwrap();
        assert!(told.contains("volume mine"), "{told}");
        assert_eq!(disks.refuse("other", &on("two")), None);
        let path = json!({"accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/p"}});
        assert_eq!(disks.refuse("other", &path), None);
        let mut share = on("one");
        share["accessModes"] = json!(["ReadWriteMany", "ReadOnlyMany"]);
        assert_eq!(disks.refuse("other", &share), None, "it is for many");
        let mut block = share.clone();
        block["volumeMode"] = json!("Block");
        assert!(disks.refuse("other", &block).is_some());
        disks.other = Some("it was a volume of another cluster, u".to_owned());
        for spec in [on("two"), path] {
            let told = disks.refuse("other", &spec).unwrap();
            assert!(told.contains("--adopt-volumes"), "{told}");
        }
        assert_eq!(disks.refuse("other", &share), None, "it is for many");
    }

    /// Whether the first has a disk of the second.
    fn meet(one: &Value, other: &Value) -> bool {
        let all = disks(other);
        disks(one).iter().any(|disk| all.contains(disk))
    }

    #[test]
    fn a_disk_is_the_same_by_its_driver_and_as_it_was_before_there_were_drivers() {
        for (kind, field, before, driver, now) in [
            (
                "awsElasticBlockStore",
                "volumeID",
                "aws://eu-1a/vol-1",
                "ebs.csi.aws.com",
                "vol-1",
            ),
            (
                "awsElasticBlockStore",
                "volumeID",
                "vol-1",
                "ebs.csi.aws.com",
                "vol-1",
            ),
            (
                "gcePersistentDisk",
                "pdName",
                "p",
                "pd.csi.storage.gke.io",
                "projects/a/zones/b/disks/p",
            ),
            (
                "azureDisk",
                "diskURI",
                "/subscriptions/S/disks/D",
                "disk.csi.azure.com",
                "/subscriptions/s/disks/d",
            ),
            ("cinder", "volumeID", "u", "cinder.csi.openstack.org", "u"),
            ("portworxVolume", "volumeID", "7", "pxd.portworx.com", "7"),
            (
                "vsphereVolume",
                "volumePath",
                "[a] b.vmdk",
                "csi.vsphere.vmware.com",
                "[a] b.vmdk",
            ),
        ] {
            let before = json!({kind: {field: before}});
            let on = |handle: &str| json!({"csi": {"driver": driver, "volumeHandle": handle}});
            assert!(meet(&before, &on(now)), "{driver}");
            assert!(!meet(&before, &on("another")), "{driver}");
        }
        assert!(!meet(
            &json!({"hostPath": {"path": "/x"}}),
            &json!({"hostPath": {"path": "/x"}})
        ));
    }

    #[test]
    fn disks_of_a_network_are_told_apart_by_their_own_names() {
        let iscsi = |portal: &str, lun: u32| json!({"iscsi": {"targetPortal": portal, "iqn": "iqn.a:b", "lun": lun}});
        assert!(
            meet(&iscsi("10.0.0.1:3260", 0), &iscsi("10.0.0.2:3260", 0)),
            "two ways to one"
        );
        assert!(!meet(
            &iscsi("10.0.0.1:3260", 0),
            &iscsi("10.0.0.1:3260", 1)
        ));
        let ports = |ports: &[&str], lun: u32| json!({"fc": {"targetWWNs": ports, "lun": lun}});
        assert!(meet(&ports(&["50a", "50b"], 1), &ports(&["50B"], 1)));
        assert!(!meet(&ports(&["50a"], 1), &ports(&["50a"], 2)));
        let unit = json!({"fc": {"wwids": ["3600a"]}});
        assert!(meet(&unit, &unit) && !meet(&unit, &ports(&["3600a"], 1)));
        let image = |at: &[&str], more: Value| {
            let mut rbd = json!({"rbd": {"monitors": at, "image": "i"}});
            rbd["rbd"]["pool"] = more;
            rbd
        };
        let first = image(&["a:6789", "b:6789"], Value::Null);
        assert!(meet(&first, &image(&["b:6789"], "rbd".into())));
        assert!(
            !meet(&first, &image(&["c:6789"], Value::Null)),
            "another storage"
        );
        assert!(!meet(&first, &image(&["a:6789"], "p".into())));
    }

    #[test]
    fn a_file_system_of_a_server_is_a_share_whatever_its_access_modes_say() {
        let of =
            |driver: &str| json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": driver}});
        for driver in [
            "efs.csi.aws.com",
            "nfs.csi.k8s.io",
            "rook-ceph.cephfs.csi.ceph.com",
        ] {
            assert!(is_share(&of(driver)), "{driver}");
        }
        for driver in [
            "ebs.csi.aws.com",
            "rook-ceph.rbd.csi.ceph.com",
            "my-efs.csi.aws.com",
        ] {
            assert!(!is_share(&of(driver)), "{driver}");
        }
        let nfs = json!({"accessModes": ["ReadWriteOnce"], "nfs": {"server": "s", "path": "/p"}});
        assert!(is_share(&nfs));
        let efs = json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs"}});
        let mut disks = Disks::default();
        disks
            .taken
            .insert("efs.csi.aws.com fs".to_owned(), "mine".to_owned());
        assert_eq!(disks.refuse("other", &efs), None, "there is room for two");
        // What counts on being alone in it does so across clusters.
        disks.other = Some("it was a volume of another cluster, u".to_owned());
        assert!(disks.refuse("other", &efs).is_some());
        assert!(disks.refuse("other", &nfs).is_some());
    }
}
