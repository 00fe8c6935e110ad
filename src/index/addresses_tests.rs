#![allow(clippy::unwrap_used)] // a test may stop

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 7));

/// Claims (`true`) and releases, by the pods of these ranks; the answer is who is told after each.
fn replay(ranks: &[Rank<'_>], steps: &[(bool, u32)]) -> (Vec<Option<u32>>, AddressBook) {
    let mut book = AddressBook::default();
    let rank = |pod: u32| ranks.get(pod as usize).copied();
    let told = steps.iter().map(|(claim, pod)| match claim {
        true => book.claim(ADDRESS, *pod, rank),
        false => book.release(ADDRESS, *pod, rank),
    });
    (told.collect(), book)
}

#[test]
fn the_youngest_has_it_whatever_the_order() {
    let [a, b] = ["a", "b"].map(Text::from);
    // The youngest of them is 2, then 3 by its UID, then 1 by its name.
    let ranks: [Rank<'_>; 4] = [
        (1, "a", &a, &a),
        (7, "a", &a, &b),
        (8, "a", &a, &a),
        (7, "b", &a, &a),
    ];
    let orders = (0..4u32).flat_map(|a| {
        (0..4u32).flat_map(move |b| (0..4u32).map(move |c| [a, b, c, 6u32.wrapping_sub(a + b + c)]))
    });
    let orders = orders.filter(|order| (0..4).all(|pod| order.contains(&pod)));
    let mut count = 0;
    for order in orders {
        count += 1;
        let mut steps: Vec<_> = order.map(|pod| (true, pod)).into();
        for gone in [None, Some(2), Some(3), Some(1), Some(0)] {
            steps.extend(gone.map(|pod| (false, pod)));
            let (_, book) = replay(&ranks, &steps);
            let left = [2, 3, 1, 0]
                .into_iter()
                .find(|pod| !steps.contains(&(false, *pod)));
            assert_eq!(book.owner(ADDRESS), left, "{steps:?}");
        }
        let (_, book) = replay(&ranks, &steps);
        assert!(book.owners.is_empty() && book.contested.is_empty());
    }
    assert_eq!(count, 24);
}

#[test]
fn who_loses_or_inherits_an_address_is_told() {
    let a = Text::from("a");
    let ranks: [Rank<'_>; 3] = [(1, "", &a, &a), (2, "", &a, &a), (3, "", &a, &a)];
    let steps = [
        (true, 1),  // nobody else's
        (true, 0),  // older: it gets nothing
        (true, 2),  // younger: 1 loses it
        (false, 1), // did not have it
        (false, 2), // 0 is left
        (false, 0), // nobody is
    ];
    let (told, _) = replay(&ranks, &steps);
    assert_eq!(told, [None, None, Some(1), None, Some(0), None]);
}
