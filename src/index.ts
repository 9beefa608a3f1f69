/**
 * Exports the library, which has the same parts as the command. `assemble` makes a flow of a parsed command line, and
 * `Flow.run` runs it.
 */
export { assemble, type Assembled, type AssembleOptions } from './plan/assemble'
export { parseCommandLine, targetsOf, type CommandLine } from './options/command-line'
export { registry, endpointFor } from './endpoints/registry'
export {
  defineEndpoint,
  opt,
  type CreateSink,
  type CreateSource,
  type Endpoint,
  type OptionsOf,
  type Spec,
  type Target,
  type Uri,
} from './options/define'
export { Redactor } from './options/redactor'
export { EntryBatch, LineBatch } from './core/batch'
export * from './core/contract'
export * from './core/errors'
export { Flow } from './core/flow/flow'
export type { Ending, FlowParts, FlowResult } from './core/flow/flow-parts'
export { imbalance, receiptLine, type Receipt } from './core/accounting/receipt'
export type { FlowStatus } from './core/flow/status'
export { systemClock } from './kit/clock'
