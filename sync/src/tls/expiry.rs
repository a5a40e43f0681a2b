//! When a certificate begins and ends: the one thing that is read out of it here. Whether it is sound
//! is left to webpki.

/// When the validity of a DER certificate ends, in seconds of the Unix epoch.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    validity(certificate).map(|(_, ends)| ends)
}

/// When the validity of a DER certificate begins and when it ends, in seconds of the Unix epoch.
pub(super) fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    // RFC 5280, section 4.1.
    const VERSION: u8 = 0xa0;
    let mut input = certificate;
    let (_, mut certificate) = element(&mut input)?;
    let (_, mut fields) = element(&mut certificate)?;
    let (tag, _) = element(&mut fields)?;
    if tag == VERSION {
        // Then comes the serial number, which else was first.
        element(&mut fields)?;
    }
    let _algorithm = element(&mut fields)?;
    let _issuer = element(&mut fields)?;
    let (_, mut validity) = element(&mut fields)?;
    let mut next = || {
        let (tag, time) = element(&mut validity)?;
        seconds(tag, time)
    };
    Some((next()?, next()?))
}

/// Takes an element's tag and contents off the beginning.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    const LONG: u8 = 0x80;
    let (&[tag, first], mut rest) = input.split_first_chunk()?;
    let mut length = usize::from(first);
    if first >= LONG {
        let (bytes, behind) = rest.split_at_checked(usize::from(first - LONG))?;
        if bytes.len() > 4 {
            return None;
        }
        length = bytes
            .iter()
            .fold(0, |length, &byte| (length << 8) | usize::from(byte));
        rest = behind;
    }
    let (contents, behind) = rest.split_at_checked(length)?;
    *input = behind;
    Some((tag, contents))
}

fn seconds(tag: u8, time: &[u8]) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = time.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut pairs = digits
        .chunks_exact(2)
        .map(|pair| i64::from(pair[0] - b'0') * 10 + i64::from(pair[1] - b'0'));
    let year = match (tag, digits.len()) {
        (UTC_TIME, 12) => match pairs.next()? {
            year @ 50.. => 1900 + year,
            year => 2000 + year,
        },
        (GENERALIZED_TIME, 14) => pairs.next()? * 100 + pairs.next()?,
        _ => return None,
    };
    let [month, day, hour, minute, second] = std::array::from_fn(|_| pairs.next().unwrap_or(0));
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days since the Unix epoch, by Hinnant's `days_from_civil`, of years from 0 on.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that a leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut leaf = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        leaf.not_before = rcgen::date_time_ymd(1970, 1, 2);
        leaf.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().unwrap();
        leaf.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_time() {
        for (year, month, day, seconds) in [
            (1999, 12, 31, 946_598_400),
            (2024, 2, 29, 1_709_164_800),
            (2038, 1, 19, 2_147_472_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            let certificate = certificate(year, month, day);
            assert_eq!(not_after(&certificate), Some(seconds), "{year}");
            assert_eq!(validity(&certificate), Some((86_400, seconds)), "{year}");
        }
    }

    #[test]
    fn whatever_is_cut_off_or_bent_is_no_panic() {
        let whole = certificate(2030, 1, 1);
        for length in 0..whole.len() {
            let _ = not_after(&whole[..length]);
            for byte in [0, 0x7f, 0x84, 0xff] {
                let mut bent = whole.clone();
                bent[length] = byte;
                let _ = not_after(&bent);
            }
        }
    }
}
