/** Types that the parts of the plan share: the ends of a flow, and its state. */
import type { Sink, Source } from '../core/contract'
import type { FlowState } from '../core/flow/flow-state'
import type { AnyTarget, PositionStorage } from '../options/define'
import type { Newline } from '../options/shared'
import type { ParsedEndpoint } from '../options/target'
import type { openFlowFile } from '../state/flow-file'
import type { EndpointIdentity } from '../state/identity'
import type { OwnedInstance } from '../state/instances'

export interface SourceEnd extends EndpointIdentity {
  readonly parsed: ParsedEndpoint
  readonly target: AnyTarget
  readonly source: Source
  readonly position: PositionStorage
  readonly sharesWork: boolean
}
export interface SinkEnd extends EndpointIdentity {
  readonly parsed: ParsedEndpoint
  readonly target: AnyTarget
  readonly sink: Sink
  readonly newline: Newline
  readonly ephemeral: boolean
}

export interface OwnedState extends OwnedInstance {
  readonly root: string
  readonly file: Awaited<ReturnType<typeof openFlowFile<FlowState>>>
  readonly stored: FlowState | undefined
  readonly spooled: boolean
  readonly spoolDirectory: string
}
