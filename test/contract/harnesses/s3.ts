/** Buckets hold segments, which this suite does not make. */
import type { Harness } from '../harness'

export const s3: Harness = {
  sink: { start: 'it writes sealed segments: test/endpoints/s3/sink.test.ts tries it on two real servers' },
}
