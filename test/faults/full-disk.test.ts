/** A disk that is full and stays full, and a process that has no descriptors left: the run ends within the time that the line gives, and says why. */
import { Chains, discard } from './shim/chain'
import { faultsOf } from './shim/judge'
import { SCENARIOS } from './shim/scenarios'
import { build, describeWithShim, type Fault } from './shim/shim'

describeWithShim('a disk that stays full', ['is told'], () => {
  let chains: Chains
  beforeAll(() => { chains = new Chains(build()) })

  async function spoiled(name: string, fault: Fault): Promise<{ readonly code: number | null; readonly stderr: string; readonly faults: readonly string[] }> {
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
})
