//! The table: rows, the goals they are held to, and how it is written.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::say;

/// All rows so far.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// Whether only what is quick was to be measured.
    #[serde(rename = "quick")]
    is_quick: bool,
    rows: Vec<Row>,
}

/// What the figures were measured on.
#[derive(Debug, Serialize)]
struct Machine {
    processors: usize,
    model: String,
    kernel: String,
}

/// A figure of ours, and where there is one that of the other side from the same run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Its name, by which it is found again: `group/what/how-many`.
    id: String,
    /// What was measured, for a reader.
    what: String,
    ours: Figure,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Other>,
    /// Ours by the other's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_met: Option<bool>,
    /// Whether ours is the same on every machine, and so must not grow.
    is_count: bool,
}

/// What ours is compared with.
#[derive(Clone, Debug, Serialize)]
struct Other {
    name: String,
    #[serde(flatten)]
    figure: Figure,
}

/// A number with its unit.
#[derive(Copy, Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Figure {
    /// The median, where it is of several runs.
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    /// The quartiles of several runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quartiles: Option<(f64, f64)>,
}

/// What a number counts.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Bytes,
    RoundTrips,
    Seconds,
    PerSecond,
    /// A part of one.
    Share,
    /// Neither more nor less than a number.
    Number,
}

/// What is to be reached: by the ratio where there is another side, else by ours alone.
#[derive(Copy, Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub(crate) const fn new(value: f64, unit: Unit) -> Self {
        Self {
            value,
            unit,
            quartiles: None,
        }
    }

    pub(crate) const fn bytes(bytes: u64) -> Self {
        Self::new(as_float(bytes), Unit::Bytes)
    }
}

impl Row {
    /// A figure of ours that has no other side and no goal yet.
    pub(crate) fn new(id: impl Into<String>, what: impl Into<String>, ours: Figure) -> Self {
        Self {
            id: id.into(),
            what: what.into(),
            ours,
            other: None,
            ratio: None,
            goal: None,
            is_met: None,
            is_count: false,
        }
    }

    /// Beside this figure of another, from the same run.
    pub(crate) fn beside(self, name: impl Into<String>, figure: Figure) -> Self {
        let name = name.into();
        Self {
            ratio: (figure.value != 0.0).then(|| self.ours.value / figure.value),
            other: Some(Other { name, figure }),
            ..self
        }
    }

    /// Held to this goal.
    pub(crate) fn goal(self, goal: Goal) -> Self {
        let value = self.ratio.unwrap_or(self.ours.value);
        Self {
            is_met: Some(match goal {
                Goal::AtMost(most) => value <= most,
                Goal::AtLeast(least) => value >= least,
            }),
            goal: Some(goal),
            ..self
        }
    }

    /// The same on every machine.
    pub(crate) fn count(self) -> Self {
        Self {
            is_count: true,
            ..self
        }
    }
}

impl Report {
    /// An empty one.
    pub(crate) fn new(is_quick: bool) -> Self {
        Self {
            machine: Machine::here(),
            is_quick,
            rows: Vec::new(),
        }
    }

    /// Whether only what is quick is to be measured.
    pub(crate) const fn is_quick(&self) -> bool {
        self.is_quick
    }

    /// Adds a row, and tells who waits of it; but no time where only counts are wanted.
    pub(crate) fn add(&mut self, row: Row) {
        if self.is_quick && !row.is_count {
            return;
        }
        say(&format!("  {row}"));
        self.rows.push(row);
    }

    /// What is the same on every machine: names and values.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, f64)> {
        let rows = self.rows.iter().filter(|row| row.is_count);
        rows.map(|row| (row.id.as_str(), row.ours.value))
    }

    /// What the names of rows have behind `prefix`, with our values.
    pub(crate) fn values(&self, prefix: &str) -> Vec<(&str, f64)> {
        let rows = self.rows.iter();
        rows.filter_map(|row| Some((row.id.strip_prefix(prefix)?, row.ours.value)))
            .collect()
    }

    /// Writes it for programs.
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let mut json = serde_json::to_string_pretty(self).context("the table as JSON")?;
        json.push('\n');
        std::fs::write(file, json).with_context(|| format!("write {}", file.display()))
    }
}

impl Machine {
    fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let model = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(String::new, |(_, model)| model.to_owned());
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            processors,
            model,
            kernel,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["what", "ours", "other side", "ratio", "goal", "verdict"].map(str::to_owned);
        let mut lines = vec![header];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: Vec<_> = (0..lines[0].len())
            .map(|column| {
                lines
                    .iter()
                    .map(|cells| cells[column].chars().count())
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let Machine {
            processors,
            model,
            kernel,
        } = &self.machine;
        writeln!(f, "{processors} processors, {model}, Linux {kernel}\n")?;
        for (number, cells) in lines.iter().enumerate() {
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for width in &widths {
                    write!(f, "|{:-<width$}", "", width = width + 2)?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self) -> [String; 6] {
        [
            self.what.clone(),
            self.ours.to_string(),
            self.other
                .as_ref()
                .map_or_else(String::new, Other::to_string),
            self.ratio.map_or_else(String::new, ratio),
            self.goal.map_or_else(String::new, |goal| goal.words(self)),
            match self.is_met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            }
            .to_owned(),
        ]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [what, ours, other, ratio, goal, verdict] = self.cells();
        write!(f, "{what}: {ours}")?;
        if !other.is_empty() {
            write!(f, "; {other}; {ratio} x")?;
        }
        if !goal.is_empty() {
            write!(f, " ({goal}: {verdict})")?;
        }
        Ok(())
    }
}

impl Goal {
    fn words(self, row: &Row) -> String {
        let (sign, value) = match self {
            Self::AtMost(most) => ("<=", most),
            Self::AtLeast(least) => (">=", least),
        };
        if row.ratio.is_some() {
            format!("{sign} {} x", ratio(value))
        } else {
            format!("{sign} {}", Figure::new(value, row.ours.unit))
        }
    }
}

/// A count as a figure has it.
#[expect(
    clippy::cast_precision_loss,
    reason = "no count here comes near to 2^52"
)]
pub(crate) const fn as_float(count: u64) -> f64 {
    count as f64
}

/// A ratio with as many digits as it deserves.
fn ratio(ratio: f64) -> String {
    if ratio != 0.0 && ratio < 0.1 {
        format!("1/{:.0}", 1.0 / ratio)
    } else {
        format!("{ratio:.2}")
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.figure)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f64| match self.unit {
            Unit::Bytes => scaled(value, &[(1e6, "MB"), (1e3, "kB"), (1.0, "B")]),
            Unit::Seconds => scaled(
                value,
                &[(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")],
            ),
            Unit::PerSecond => scaled(value, &[(1e3, "k/s"), (1.0, "/s")]),
            Unit::Share => format!("{:.2} %", value * 100.0),
            Unit::RoundTrips => format!("{value:.2} round trips"),
            Unit::Number => scaled(value, &[(1e6, "M"), (1e3, "k"), (1.0, "")]),
        };
        f.write_str(&number(self.value))?;
        if let Some((low, high)) = self.quartiles {
            write!(f, " ({} to {})", number(low), number(high))?;
        }
        Ok(())
    }
}

/// A value in the largest of the units (each with its size, the largest first) that leaves it at one
/// or more.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let smallest = units.last().copied().unwrap_or((1.0, ""));
    let found = units.iter().find(|(size, _)| value >= *size);
    let (size, name) = found.copied().unwrap_or(smallest);
    let scaled = value / size;
    // Whole numbers of the smallest unit need no digits behind the point, nor do large ones.
    let digits = if scaled >= 100.0 || scaled.fract() == 0.0 {
        0
    } else {
        2
    };
    format!("{scaled:.digits$} {name}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_told_in_the_unit_that_suits_it() {
        let told = |value, unit| Figure::new(value, unit).to_string();
        assert_eq!(told(12.0, Unit::Bytes), "12 B");
        assert_eq!(told(1_834.0, Unit::Bytes), "1.83 kB");
        assert_eq!(told(0.000_43, Unit::Seconds), "430 us");
        assert_eq!(told(0.0, Unit::Seconds), "0 ns");
        assert_eq!(told(0.997, Unit::Share), "99.70 %");
    }

    #[test]
    fn a_goal_is_for_the_ratio_where_there_is_another_side() {
        let row = Row::new("a", "a", Figure::bytes(100));
        assert_eq!(row.clone().goal(Goal::AtMost(300.0)).is_met, Some(true));
        assert_eq!(row.clone().goal(Goal::AtLeast(300.0)).is_met, Some(false));
        let beside = row.beside("twice that", Figure::bytes(200));
        assert_eq!(beside.clone().goal(Goal::AtMost(0.4)).is_met, Some(false));
        assert_eq!(beside.goal(Goal::AtMost(0.5)).is_met, Some(true));
    }
}
