/** Standard input from a descriptor of its own: the endpoint's source reads descriptor 0 of the process. */
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createFramer } from '../../../src/codec/framing'
import { StdioSource } from '../../../src/endpoints/stdio/source'
import { makeTarget } from '../../support/context'
import { inFolder, type Harness } from '../harness'

export const stdio: Harness = {
  source: {
    start: (endpoint, records) =>
      inFolder((folder, stop) => {
        writeFileSync(join(folder, 'in'), records.map((each) => `${each}\n`).join(''))
        const fd = openSync(join(folder, 'in'), 'r')
        return Promise.resolve({
          target: makeTarget(endpoint, '-'),
          makeSource: () => new StdioSource(fd, createFramer('lines', { maxRecord: 1 << 20 })),
          expected: records,
          stop: async () => {
            closeSync(fd)
            await stop()
          },
        })
      }),
  },
  sink: { start: 'stdout is a descriptor of the process: test/endpoints/stdio.test.ts tries it over real pipes' },
}
