/**
 * Tests that need a real server. Where it cannot be had they are skipped, loudly and counted, with the reason in their
 * title; with MANIFOLD_REQUIRE_SERVICES=1 they fail instead. What is there: scripts/services.
 */
import { available as kafka, kcat } from '../../scripts/services/kafka'
import { available as kcl } from '../../scripts/services/kcl'
import { available as aws } from '../../scripts/services/kinesis'
import { available as rabbitmq } from '../../scripts/services/rabbitmq'
import { available as s3 } from '../../scripts/services/s3'
import { faketime, shell } from '../../scripts/services/tools'

export type Need =
  | 's3'
  | 'versitygw'
  | 'minio'
  | 'kafka'
  | 'kcat'
  | 'rabbitmq'
  | 'kinesis'
  | 'kinesis-fanout'
  | 'dynamodb'
  | 'kcl'
  | 'kcl-3'
  | 'zsh'
  | 'fish'
  | 'faketime'

/** By need: whether it can be had, what it is called, what installs it. */
const needs: Readonly<
  Record<Need, { readonly there: () => boolean; readonly what: string; readonly install: string }>
> = {
  s3: {
    there: () => s3().length > 0 || process.env['MANIFOLD_TEST_S3'] !== undefined,
    what: 'S3 server',
    install: 's3',
  },
  versitygw: { there: () => s3().includes('versitygw'), what: 'versitygw', install: 's3' },
  minio: { there: () => s3().includes('minio'), what: 'minio', install: 's3' },
  kafka: {
    there: () => kafka().length > 0 || process.env['MANIFOLD_TEST_KAFKA'] !== undefined,
    what: 'Kafka',
    install: 'kafka',
  },
  kcat: { there: () => kafka().length > 0 && kcat() !== undefined, what: 'Kafka and kcat', install: 'kafka,kcat' },
  rabbitmq: {
    there: () => rabbitmq().length > 0 || process.env['MANIFOLD_TEST_RABBITMQ'] !== undefined,
    what: 'RabbitMQ',
    install: 'rabbitmq',
  },
  kinesis: {
    there: () => aws().includes('kinesalite') || process.env['MANIFOLD_TEST_KINESIS'] !== undefined,
    what: 'Kinesis emulator',
    install: 'kinesis',
  },
  'kinesis-fanout': { there: () => aws().includes('kinesis-local'), what: 'kinesis-local', install: 'kinesis-fanout' },
  dynamodb: {
    there: () => aws().includes('dynalite') || process.env['MANIFOLD_TEST_DYNAMODB'] !== undefined,
    what: 'DynamoDB emulator',
    install: 'dynamodb',
  },
  kcl: { there: () => kcl().includes('kcl-2'), what: 'Kinesis Client Library 2', install: 'kcl' },
  zsh: { there: () => shell('zsh') !== undefined, what: 'zsh', install: 'zsh' },
  faketime: { there: () => faketime() !== undefined, what: 'libfaketime', install: 'faketime' },
  fish: { there: () => shell('fish') !== undefined, what: 'fish', install: 'fish' },
  'kcl-3': { there: () => kcl().includes('kcl-3'), what: 'Kinesis Client Library 3', install: 'kcl --only kcl-3' },
}

/** The reason why it cannot be had here; undefined where it can. */
export function whyNot(need: Need): string | undefined {
  const { there, what, install } = needs[need]
  return there() ? undefined : `no ${what} here: node scripts/services.js install --need ${install}`
}

export function describeWith(need: Need, title: string, body: () => void): void {
  const why = whyNot(need)
  if (why === undefined) {
    describe(title, body)
    return
  }
  if (process.env['MANIFOLD_REQUIRE_SERVICES'] === '1') {
    describe(title, () => {
      it('has the server it needs', () => {
        throw new Error(why)
      })
    })
    return
  }
  process.stderr.write(`SKIPPED: ${title}: ${why}\n`)
  describe.skip(`${title} (skipped: ${why})`, body)
}
