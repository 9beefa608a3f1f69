/**
 * Appends numbered records to the spool in argv[2] as fast as it can and writes to stdout how far they are
 * acknowledged. Runs until it is killed.
 */
import { LineBatch } from '../../src/core/batch'
import { systemClock } from '../../src/kit/clock'
import { realFileSystem } from '../../src/kit/file-system'
import { openSpool } from '../../src/spool'
import { policy, silent } from './support'

async function main(directory: string, id: string, from: number): Promise<void> {
  const { spool } = await openSpool({
    fs: realFileSystem,
    directory,
    clock: systemClock,
    log: silent,
    id,
    known: { sequence: 0, clean: false, tail: 0, acceptedThrough: 0 },
    reserve: 0,
    segmentBytes: 1 << 20,
    policies: [{ sink: 'archive', policy: policy({ sealBytes: 300_000 }) }],
  })
  for (let number = from; ; ) {
    const appends = Array.from({ length: 20 }, () => {
      const count = 1 + (number % 50)
      const text = Array.from({ length: count }, (_, index) => `${number + index} ${'x'.repeat(100)}\n`).join('')
      const last = String((number += count))
      return spool
        .append({
          source: 'numbers',
          partition: { name: 'p', epoch: 1 },
          batch: new LineBatch([Buffer.from(text)], count),
          last,
          at: () => last,
          receivedAt: systemClock.now(),
        })
        .then(() => last)
    })
    for (const append of appends) process.stdout.write(`${await append}\n`)
  }
}
void main(process.argv[2] ?? '', process.argv[3] ?? '', Number(process.argv[4]))
