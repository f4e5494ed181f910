//! Sentences: a few hundred common words, a template, and a small generator of random numbers with
//! a fixed start, so that every machine gets the same notes.

/// Weather comes often, and the first kinds most often: "storm" is in about every seventh note.
const WEATHER: &[&str] = &[
    "storm", "rain", "wind", "fog", "frost", "snow", "sunshine", "drizzle", "hail", "thunder",
    "mist", "heat", "sleet", "calm",
];
const KIND: &[&str] = &[
    "cold", "warm", "sudden", "long", "short", "light", "heavy", "gentle", "bitter", "steady",
    "early", "late", "quiet", "loud", "grey", "golden",
];
const TIME: &[&str] = &[
    "Before dawn",
    "At sunrise",
    "In the morning",
    "Before noon",
    "At noon",
    "After lunch",
    "In the afternoon",
    "Towards evening",
    "At sunset",
    "After dark",
    "Around midnight",
    "In the night",
];
const PLACE: &[&str] = &[
    "orchard",
    "greenhouse",
    "workshop",
    "boiler room",
    "harbor",
    "meadow",
    "rooftop",
    "cellar",
    "mill",
    "courtyard",
    "tunnel",
    "lighthouse",
    "quarry",
    "vineyard",
    "barn",
    "bridge",
];
const MACHINE: &[&str] = &[
    "pump",
    "engine",
    "crane",
    "lathe",
    "turbine",
    "valve",
    "conveyor",
    "press",
    "loom",
    "drill",
    "fan",
    "generator",
    "gearbox",
    "compressor",
    "winch",
    "clock",
    "elevator",
    "kiln",
    "mixer",
    "saw",
];
const DID: &[&str] = &[
    "rattled",
    "stopped",
    "started",
    "slowed down",
    "ran hot",
    "leaked",
    "whistled",
    "jammed",
    "turned",
    "shook",
    "hummed",
    "stalled",
    "overheated",
    "cooled off",
    "needed oil",
    "lost pressure",
    "ran smoothly",
    "was repaired",
    "was cleaned",
    "was tested",
];
const PLANT: &[&str] = &[
    "roses", "tomatoes", "beans", "apples", "lavender", "clover", "ferns", "tulips", "onions",
    "carrots", "plums", "basil", "thyme", "pumpkins", "ivy", "moss", "cherries", "spinach",
    "poppies", "willows",
];
const GREW: &[&str] = &[
    "bloomed",
    "wilted",
    "ripened",
    "sprouted",
    "needed water",
    "were pruned",
    "were picked",
    "were covered",
    "dried out",
    "recovered",
    "lost their leaves",
    "were planted",
    "spread",
    "stood in water",
    "grew well",
    "froze",
];
const HOW: &[&str] =
    &["twice", "again", "at last", "for an hour", "all day", "a little", "as expected", "for once"];

/// The days that the notes were written on: ten years of them.
const DAYS: u32 = 3_650;

/// One note.
#[derive(Debug)]
pub(crate) struct Note {
    /// A sentence.
    pub(crate) text: String,
    /// Where it was written.
    pub(crate) place: &'static str,
    /// When: days since 2015-01-01.
    pub(crate) day: u32,
}

/// Writes one note after the other, for ever.
#[derive(Debug)]
pub(crate) struct Writer {
    state: u64,
}

impl Writer {
    /// A writer at its fixed start.
    pub(crate) fn new() -> Self {
        Self { state: 0x9e37_79b9 }
    }

    /// The next note.
    pub(crate) fn note(&mut self) -> Note {
        let place = self.pick(PLACE);
        let text = format!(
            "{}, {} {} over the {place}: the {} {} {} and the {} {} {}.",
            self.pick(TIME),
            self.pick(KIND),
            self.pick_early(WEATHER),
            self.pick(MACHINE),
            self.pick(DID),
            self.pick(HOW),
            self.pick(PLANT),
            self.pick(GREW),
            self.pick(HOW),
        );
        Note { text, place, day: self.below(DAYS) }
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len() as u32) as usize]
    }

    /// The smaller of two rolls: the first words come most often, the last hardly ever.
    fn pick_early(&mut self, words: &[&'static str]) -> &'static str {
        let most = words.len() as u32;
        words[self.below(most).min(self.below(most)) as usize]
    }

    /// A number below `most`. The product's high half is as even as 32 random bits allow.
    fn below(&mut self, most: u32) -> u32 {
        (((self.next() >> 32) * u64::from(most)) >> 32) as u32
    }

    /// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
