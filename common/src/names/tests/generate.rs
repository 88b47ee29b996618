//! Messages as resolvers write them, and as no one should.

use std::{vec, vec::Vec};

/// A sequence of numbers that look random (splitmix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

const LABELS: &[&[u8]] = &[
    b"com",
    b"example",
    b"api",
    b"test",
    b"good",
    b"good\0",
    b"x",
    b"\xff\x80",
    b"good.test",
    b"svc",
    b"cdn",
];

/// A message in the making.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// Where labels of names stand.
    labels: Vec<usize>,
}

impl Message {
    pub(super) fn new(answers: u16) -> Self {
        let [high, low] = answers.to_be_bytes();
        Self { bytes: vec![0x12, 0x34, 0x81, 0x80, 0, 1, high, low, 0, 0, 0, 0], labels: Vec::new() }
    }

    /// A name in labels.
    pub(super) fn name(&mut self, name: &[&[u8]]) {
        for label in name {
            self.labels.push(self.bytes.len());
            self.bytes.push(label.len().try_into().expect("a label"));
            self.bytes.extend(*label);
        }
        self.bytes.push(0);
    }

    pub(super) fn question(&mut self, name: &[&[u8]], kind: u16) {
        self.name(name);
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend([0, 1]);
    }

    /// A record whose owner is the name that was asked.
    pub(super) fn record(&mut self, kind: u16, class: u16, ttl: u32, data: &[u8]) {
        self.bytes.extend([0xc0, 12]);
        self.head(kind, class, ttl);
        self.bytes.extend(u16::try_from(data.len()).expect("a record's data").to_be_bytes());
        self.bytes.extend(data);
    }

    fn head(&mut self, kind: u16, class: u16, ttl: u32) {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(class.to_be_bytes());
        self.bytes.extend(ttl.to_be_bytes());
    }

    /// A name of few labels, perhaps ending in a pointer.
    fn random_name(&mut self, numbers: &mut Numbers, may_point: bool) {
        for _ in 0..numbers.below(4) {
            let label = numbers.pick(LABELS);
            self.labels.push(self.bytes.len());
            self.bytes.push(label.len().try_into().expect("a label"));
            let upper = numbers.one_in(3);
            self.bytes.extend(label.iter().map(|byte| if upper { byte.to_ascii_uppercase() } else { *byte }));
        }
        if may_point && !self.labels.is_empty() && !numbers.one_in(4) {
            let to = self.labels[numbers.below(self.labels.len())];
            let [high, low] = u16::try_from(to).expect("short").to_be_bytes();
            self.bytes.extend([0xc0 | high, low]);
        } else {
            self.bytes.push(0);
        }
    }

    fn random_record(&mut self, numbers: &mut Numbers, asked: u16) {
        self.random_name(numbers, true);
        let kind = match numbers.below(8) {
            0 | 1 => 5,
            2 => [1, 28, 64, 65, 46, 16][numbers.below(6)],
            _ => asked,
        };
        let class = if numbers.one_in(20) { 3 } else { 1 };
        let ttl = [0, 30, 300, 1 << 31, u32::MAX][numbers.below(5)];
        self.head(kind, class, ttl);
        let length_at = self.bytes.len();
        self.bytes.extend([0, 0]);
        match kind {
            1 => self.random_address(numbers, 4),
            28 => self.random_address(numbers, 16),
            5 => self.random_name(numbers, true),
            64 | 65 => {
                self.bytes.extend([0, u8::from(!numbers.one_in(5))]);
                self.random_name(numbers, numbers.0.is_multiple_of(16));
                for _ in 0..numbers.below(4) {
                    let key = [1, 3, 4, 6][numbers.below(4)];
                    let (count, size) = (numbers.below(3), if key == 4 { 4 } else { 16 });
                    self.bytes.extend([0, key, 0, u8::try_from(count * size).expect("short")]);
                    (0..count).for_each(|_| self.random_address(numbers, size));
                }
            }
            _ => (0..numbers.below(30)).for_each(|_| self.bytes.push(numbers.byte())),
        }
        let length = self.bytes.len() - length_at - 2;
        let lies = numbers.one_in(50);
        let length = u16::try_from(length).expect("short").wrapping_add(u16::from(lies));
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn random_address(&mut self, numbers: &mut Numbers, size: usize) {
        let first = [10, 127, 169, 0, 224, 0x20, 0xfe, 0xff][numbers.below(8)];
        let start = self.bytes.len();
        self.bytes.resize(start + size, 0);
        let address = &mut self.bytes[start..];
        (address[0], address[1], address[size - 1]) =
            (first, [0xfe, 0x80, 1][numbers.below(3)], numbers.byte());
        if size == 16 && numbers.one_in(6) {
            address[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        }
    }
}

/// A message; one of three has some bytes changed, or is cut.
pub(super) fn message(numbers: &mut Numbers) -> Vec<u8> {
    let answers = numbers.below(8);
    let mut message = Message::new(answers.try_into().expect("few"));
    message.random_name(numbers, numbers.0.is_multiple_of(64));
    let asked: u16 = [1, 1, 28, 28, 64, 65, 255][numbers.below(7)];
    message.bytes.extend(asked.to_be_bytes());
    message.bytes.extend([0, if numbers.one_in(40) { 3 } else { 1 }]);
    if numbers.one_in(40) {
        message.bytes[3] |= numbers.byte() & 15;
    }
    (0..answers).for_each(|_| message.random_record(numbers, asked));
    let mut bytes = message.bytes;
    for _ in 0..if numbers.one_in(3) { 1 + numbers.below(3) } else { 0 } {
        let at = numbers.below(bytes.len());
        match numbers.below(4) {
            0 => bytes[at] = numbers.byte(),
            1 => bytes[at] ^= 1 << numbers.below(8),
            2 => bytes.insert(at, numbers.byte()),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}
