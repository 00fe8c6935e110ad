use std::collections::BTreeMap;

use super::*;
use crate::cluster::object::ObjectKey;
use crate::index::Index;

fn shape() -> Shape {
    Shape {
        pods: 2_000,
        policies: 1_000,
        ..Shape::default()
    }
}

#[test]
fn a_cluster_is_as_large_as_asked_and_its_objects_are_distinct() {
    let cluster = Cluster::new(shape());
    let objects: Vec<Object> = cluster.objects().collect();
    let keys: std::collections::BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
    assert_eq!(keys.len(), objects.len());
    let mut index = Index::new();
    for object in objects {
        index.apply(Event::Apply(object));
    }
    assert_eq!(index.pods().count(), 2_000);
    assert_eq!(index.policies().count(), 1_000);
    assert_eq!(index.pods_on(NODE).count(), 50);
    // Every pod has an address that no other has, and most can be reached by some policy's selector.
    assert!(index.pods().all(|pod| index.addresses(pod).v4.is_some()));
    let mut sizes: Vec<usize> = {
        let mut by_namespace = BTreeMap::<_, usize>::new();
        for pod in index.pods() {
            *by_namespace.entry(pod.namespace.clone()).or_default() += 1;
        }
        by_namespace.into_values().collect()
    };
    sizes.sort_unstable();
    let (smallest, largest) = (sizes[0], sizes[sizes.len() - 1]);
    assert!(largest > 10 * smallest, "skewed: {smallest} to {largest}");
}

#[test]
fn the_same_shape_gives_the_same_cluster_and_events() {
    let mut one = Cluster::new(shape());
    let mut two = Cluster::new(shape());
    assert!(one.objects().eq(two.objects()));
    for _ in 0..1_000 {
        assert_eq!(one.next_event(), two.next_event());
    }
    let other = Cluster::new(Shape { seed: 2, ..shape() });
    assert!(!other.objects().eq(Cluster::new(shape()).objects()));
}

#[test]
fn events_lead_to_the_objects() {
    let mut cluster = Cluster::new(shape());
    let mut index = Index::new();
    for object in cluster.objects() {
        index.apply(Event::Apply(object));
    }
    for _ in 0..20_000 {
        index.apply(cluster.next_event());
    }
    for event in cluster.settle() {
        index.apply(event);
    }
    let known: BTreeMap<ObjectKey, Object> = cluster.objects().map(|o| (o.key(), o)).collect();
    assert_eq!(index.pods().count(), cluster.pods());
    for pod in index.pods() {
        let object = Object::Pod(pod.clone());
        assert_eq!(known.get(&object.key()), Some(&object));
    }
    for policy in index.policies() {
        let object = Object::Policy(policy.clone());
        assert_eq!(known.get(&object.key()), Some(&object));
    }
    assert!((1_900..2_100).contains(&cluster.pods()));
    assert_eq!(index.pods_on(NODE).count(), 50);
}
