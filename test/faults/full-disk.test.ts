/**
 * A disk that is full and stays full, one that does not take the state any more, a process that has no descriptors
 * left: the run ends in time, and says why.
 */
import { Chains, discard } from './shim/chain'
import { faultsOf } from './shim/judge'
import { SCENARIOS } from './shim/scenarios'
import { build, describeWithShim, type Fault } from './shim/shim'

describeWithShim('a disk that takes no more', ['is told'], () => {
  let chains: Chains
  beforeAll(() => {
    chains = new Chains(build())
  })

  async function spoiled(
    name: string,
    fault: Fault,
  ): Promise<{ readonly code: number | null; readonly stderr: string; readonly faults: readonly string[] }> {
    const scenario = SCENARIOS.find((one) => one.name === name)
    if (scenario === undefined) throw new Error(`no flow ${name}`)
    const chain = await chains.chain(scenario, fault)
    const faults = faultsOf(chain)
    if (faults.length === 0) discard(chain)
    const { code = null, stderr = '' } = chain.runs[0] ?? {}
    return { code, stderr, faults }
  }

  test('a bounded run whose spool cannot be written ends with 74 within --give-up-after, says why, and goes on when there is room', async () => {
    const { code, stderr, faults } = await spoiled('file-s3', { mode: 'full', at: 1, only: '/spool/' })
    expect({ code, faults }).toEqual({ code: 74, faults: [] })
    expect(stderr).toMatch(/no space left on device.*make room/)
  })

  test('so does one in which what is spooled cannot be sealed', async () => {
    const { code, stderr, faults } = await spoiled('file-s3', { mode: 'full', at: 4, only: '.seg' })
    expect({ code, faults }).toEqual({ code: 74, faults: [] })
    expect(stderr).toMatch(/no space left on device/)
  })

  test('a run that finds no descriptor to look into its state ends with 74 and says what to raise', async () => {
    const { code, stderr, faults } = await spoiled('file-s3', { mode: 'EMFILE-once', at: 1, only: '/0' })
    expect({ code, faults }).toEqual({ code: 74, faults: [] })
    expect(stderr).toMatch(/too many open files.*LimitNOFILE/)
  })

  test('a run that cannot store how it stands leaves its receipt to the next start, which goes by what the disk holds', async () => {
    const scenario = SCENARIOS.find(({ name }) => name === 'file-s3')
    if (scenario === undefined) throw new Error('no such flow')
    const straight = await chains.chain(scenario, undefined)
    const calls = straight.runs[0]?.calls.filter(({ path }) => path.includes('/0/flow')) ?? []
    discard(straight)
    // That the run began is stored; nothing is after that.
    const begun = calls.findIndex(({ name }) => name === 'rename') + 1
    const chain = await chains.chain(scenario, { mode: 'EIO-from', at: begun + 1, only: '/0/flow' })
    const faults = faultsOf(chain)
    expect({ code: chain.runs[0]?.code, faults, outcomes: chain.receipts.map(({ outcome }) => outcome) }).toEqual({
      code: 74,
      faults: [],
      outcomes: ['killed', 'complete'],
    })
    expect(chain.runs[0]?.stderr).toContain('as far as it is known')
    discard(chain)
  })

  test("two outputs and a receipt that cannot be opened are told in ten lines, and nothing of Node's", async () => {
    const scenario = SCENARIOS.find(({ name }) => name === 'generate-two-files')
    if (scenario === undefined) throw new Error('no such flow')
    const straight = await chains.chain(scenario, undefined)
    const at = straight.runs[0]?.calls.find(({ path }) => path === '/.b.ndjson.4.writing')?.number ?? 0
    discard(straight)
    expect(await spoiled('generate-two-files', { mode: 'EMFILE-from', at })).toMatchObject({ faults: [] })
  })
})
