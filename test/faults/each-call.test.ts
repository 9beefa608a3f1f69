/**
 * Every call of six short flows to file system and network is spoiled, one run per call: the process is killed there,
 * or the call fails. The same line, run again, has to end well, with every record delivered or named, receipts that add
 * up and an honest exit code (shim/judge.ts).
 *
 * Here a sample is drawn evenly, the same in each run; MANIFOLD_LONG=1 spoils every call in every way.
 * MANIFOLD_CALL=SCENARIO:MODE:NUMBER runs one case; the folder of a case that shows a fault is kept and named.
 */
import { Chains, discard, type Chain } from './shim/chain'
import { faultsOf } from './shim/judge'
import { SCENARIOS, type Scenario } from './shim/scenarios'
import { build, casesOf, describeWithShim, evenly, type Fault, type Mode } from './shim/shim'

const LONG = process.env['MANIFOLD_LONG'] === '1'
const [onlyScenario, onlyMode, onlyNumber] = process.env['MANIFOLD_CALL']?.split(':') ?? []
/** Chains of each flow in the sample; one takes one to two seconds. */
const SAMPLE = 6
/** What the sample is drawn of; the others wait, each, for as long as a descriptor may take to come free. */
const SAMPLED: readonly Mode[] = ['kill', 'short', 'full', 'EIO-once', 'EIO-from', 'ENOSPC-once', 'ECONNRESET-once']

describeWithShim(
  'each call spoiled',
  SCENARIOS.map(({ name }) => name),
  () => {
    let chains: Chains
    beforeAll(() => {
      chains = new Chains(build())
    })

    async function judged(
      scenario: Scenario,
      fault: Fault | undefined,
    ): Promise<{ readonly chain: Chain; readonly faults: readonly string[] }> {
      const chain = await chains.chain(scenario, fault)
      const faults = faultsOf(chain)
      if (faults.length === 0) discard(chain)
      return {
        chain,
        faults:
          faults.length === 0 ? [] : [`${scenario.name}:${fault?.mode}:${fault?.at} in ${chain.folder}`, ...faults],
      }
    }

    for (const scenario of onlyScenario === undefined
      ? SCENARIOS
      : SCENARIOS.filter(({ name }) => name === onlyScenario)) {
      test(
        scenario.name,
        async () => {
          if (onlyNumber !== undefined) {
            expect((await judged(scenario, { mode: onlyMode as Mode, at: Number(onlyNumber) })).faults).toEqual([])
            return
          }
          const { chain, faults } = await judged(scenario, undefined)
          expect(faults).toEqual([])
          const calls = chain.runs[0]?.calls ?? []
          expect(calls.length).toBeGreaterThan(50)
          const cases = casesOf(calls)
          const found: (readonly string[])[] = []
          const drawn = LONG
            ? cases
            : evenly(
                cases.filter(({ mode }) => SAMPLED.includes(mode)),
                SAMPLE,
              )
          for (const fault of drawn) found.push((await judged(scenario, fault)).faults)
          process.stderr.write(
            `each call spoiled: ${scenario.name}: ${calls.length} calls, ${drawn.length} of ${cases.length} cases\n`,
          )
          expect(found.filter((faults) => faults.length > 0)).toEqual([])
        },
        LONG ? 4 * 3_600_000 : 300_000,
      )
    }

    test('a write to a file is announced on the disk before it is made: a power cut in between leaves nothing torn that nobody knows of', async () => {
      const scenario = SCENARIOS.find(({ name }) => name === 'stdin-spool-file')
      if (scenario === undefined) throw new Error('no such flow')
      const { chain } = await judged(scenario, undefined)
      const calls = (chain.runs[0]?.calls ?? []).filter(
        ({ kind, path }) => 'ws'.includes(kind) && /^\/\.?out\.ndjson/.test(path),
      )
      const written = calls.findIndex(({ kind, path }) => kind === 'w' && path === '/out.ndjson')
      expect(calls.slice(Math.max(0, written - 2), written + 2).map(({ kind, path }) => `${kind} ${path}`)).toEqual([
        'w /.out.ndjson.writing',
        's /.out.ndjson.writing',
        'w /out.ndjson',
        's /out.ndjson',
      ])
    })

    test('killed before its spool, which lies in a folder of its own, holds anything: the line goes on', async () => {
      const scenario = SCENARIOS.find(({ name }) => name === 'stdin-spool-file')
      if (scenario === undefined) throw new Error('no such flow')
      expect((await judged(scenario, { mode: 'kill', at: 1, only: '.seg' })).faults).toEqual([])
    })
  },
)
