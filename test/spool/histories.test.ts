/**
 * Random histories against a plain model. The tests always run the same ones, so that a change is what fails;
 * MANIFOLD_HISTORIES=n runs n others, MANIFOLD_SEED=n repeats one and prints what happened in it.
 */
import { History } from './model'

const COUNT = Number(process.env['MANIFOLD_HISTORIES'] ?? 10_000)
const SEED = process.env['MANIFOLD_SEED']
/** One takes a few milliseconds: what takes this long waits for something that never comes. */
const STUCK_AFTER = 10_000

/** Histories that once found something. */
const FOUND = [241765389]

test.each(FOUND)('the history of seed %i, which once lost records, loses none', async (seed) => {
  await new History(seed).run()
})

test(`${SEED === undefined ? COUNT : 1} random histories of appends, seals, reads, drops, crashes and disk faults lose nothing and serve nothing twice`, async () => {
  const from =
    SEED !== undefined
      ? Number(SEED)
      : process.env['MANIFOLD_HISTORIES'] === undefined
        ? 1
        : (Math.floor(Date.now() / 1000) * 100_000) % 2 ** 31
  for (let seed = from; seed < from + (SEED === undefined ? COUNT : 1); seed++) {
    const history = new History(seed)
    let timer: NodeJS.Timeout | undefined
    try {
      await Promise.race([
        history.run(),
        new Promise((_, reject) => {
          timer = setTimeout(() => {
            reject(new Error('it is stuck'))
          }, STUCK_AFTER)
        }),
      ])
    } catch (error) {
      throw new Error(`MANIFOLD_SEED=${seed}: ${(error as Error).message}\n${history.log.join('\n')}`, { cause: error })
    } finally {
      clearTimeout(timer)
    }
  }
}, 600_000)
