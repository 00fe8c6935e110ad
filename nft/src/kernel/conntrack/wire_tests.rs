use super::super::super::wire::{Header, Message, begin_message, end_message, messages};
use super::*;

fn tuple(source: &str, destination: &str, protocol: u8, detail: Detail) -> Tuple {
    Tuple {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol,
        detail,
        zone: None,
    }
}

fn ports(source: u16, destination: u16) -> Detail {
    Detail::Ports {
        source,
        destination,
    }
}

/// Entries of every kind.
fn samples() -> Vec<Entry> {
    let echo = |kind| Detail::Icmp {
        kind,
        code: 0,
        id: 7,
    };
    let entry = |original, reply| Entry {
        original,
        reply,
        id: 0xdead_beef,
        zone: 0,
        expected: false,
        closed: false,
    };
    let mut zoned = entry(
        tuple("fd00::1", "fd00::2", 17, ports(5000, 53)),
        tuple("fd00::3", "fd00::1", 17, ports(5353, 5000)),
    );
    zoned.zone = 9;
    zoned.original.zone = Some(9);
    zoned.expected = true;
    let mut closed = entry(
        tuple("10.0.0.1", "10.96.0.1", 6, ports(4000, 80)),
        tuple("10.0.0.2", "10.0.0.1", 6, ports(8080, 4000)),
    );
    closed.closed = true;
    vec![
        zoned,
        closed,
        entry(
            tuple("10.0.0.1", "10.0.0.2", 1, echo(8)),
            tuple("10.0.0.2", "10.0.0.1", 1, echo(0)),
        ),
        entry(
            tuple("fd00::1", "fd00::2", 58, echo(128)),
            tuple("fd00::2", "fd00::1", 58, echo(129)),
        ),
        entry(
            tuple("10.0.0.1", "10.0.0.2", 50, Detail::None),
            tuple("10.0.0.2", "10.0.0.1", 50, Detail::None),
        ),
    ]
}

/// An entry as the kernel tells it.
fn told(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header {
        kind: 0x100,
        flags: 0,
        family: 2,
        seq: 1,
        resource: 0,
    };
    let start = begin_message(&mut out, header);
    put_entry(&mut out, entry);
    put_tuple(&mut out, TUPLE_REPLY, &entry.reply);
    put_u32(&mut out, STATUS, 0x18e | u32::from(entry.expected));
    if entry.closed {
        nest(&mut out, PROTOINFO, |out| {
            nest(out, PROTOINFO_TCP, |out| put(out, TCP_STATE, &[7]));
        });
    }
    end_message(&mut out, start);
    out
}

fn only(bytes: &[u8]) -> Message<'_> {
    messages(bytes).next().unwrap().unwrap()
}

#[test]
fn entries_are_read_as_they_are_written() {
    for sample in samples() {
        assert_eq!(entry(only(&told(&sample)).attrs()), Ok(sample));
    }
}

#[test]
fn what_is_cut_off_or_falsified_is_an_error_or_another_entry_and_no_panic() {
    for sample in samples() {
        let whole = told(&sample);
        let attrs = whole.len() - 20;
        for cut in 0..attrs {
            let mut bytes = whole[..20 + cut].to_vec();
            end_message(&mut bytes, 0);
            let read = messages(&bytes).flatten().map(|m| entry(m.attrs()));
            assert!(
                read.into_iter()
                    .all(|read| read != Ok(sample) || cut + 40 > attrs)
            );
        }
        for byte in 0..whole.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[byte] = value;
                for message in messages(&bytes).flatten() {
                    let _ = entry(message.attrs());
                }
            }
        }
    }
}

#[test]
fn without_an_id_an_entry_can_not_be_told_from_its_successor() {
    let mut out = Vec::new();
    let sample = samples()[1];
    put_tuple(&mut out, TUPLE_ORIG, &sample.original);
    put_tuple(&mut out, TUPLE_REPLY, &sample.reply);
    let mut bytes = vec![0; 20];
    bytes.extend(out);
    end_message(&mut bytes, 0);
    let error = entry(only(&bytes).attrs()).unwrap_err();
    assert_eq!(error.reason, "there is no attribute 12");
}

#[test]
fn an_address_is_asked_for_in_one_direction() {
    let mut out = Vec::new();
    put_source_filter(&mut out, Direction::Reply, [10, 0, 0, 1].into());
    let head = |len: u16, kind: u16| [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    let nested = libc::NLA_F_NESTED as u16;
    let expected = [
        head(16, nested | 2),
        head(12, nested | 1),
        head(8, 1),
        vec![10, 0, 0, 1],
        head(12, nested | 25),
        head(8, 2),
        1_u32.to_ne_bytes().to_vec(),
    ];
    assert_eq!(out, expected.concat());
}
