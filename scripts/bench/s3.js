/**
 * stdin to S3 against `aws s3 cp`. The server's own work and disk are part of each figure, so each kind that proves
 * something has its rows.
 */
'use strict'
const { data } = require('./data')
const { compare, measure } = require('./measure')
const { available, startS3 } = require('../services/s3')

async function run({ manifold, state, pairs, wants, bytes, ten, results, memory }) {
  if (!wants('s3') && !wants('gzip')) return
  const { file } = data(bytes)
  for (const kind of available().filter((one) => one !== 'moto')) {
    const server = await startS3({ kind })
    try {
      const env = Object.assign({}, process.env, {
        AWS_ACCESS_KEY_ID: server.accessKey,
        AWS_SECRET_ACCESS_KEY: server.secretKey,
        AWS_DEFAULT_REGION: 'us-east-1',
        AWS_REGION: 'us-east-1',
        AWS_EC2_METADATA_DISABLED: 'true',
      })
      const options = { env, stdio: ['ignore', 'ignore', 'pipe'] }
      const aws = `aws --endpoint-url ${server.endpoint}`
      await measure(() => `${aws} s3 mb s3://bench > /dev/null`, options)
      const clean = () => measure(() => `${aws} s3 rm --quiet --recursive s3://bench`, options)
      const upload = async (from, more) => {
        const done = await measure(
          (wrap) =>
            `cat '${from}' | ${wrap(`'${manifold}' --from - --to s3://bench/ours endpoint=${server.endpoint} path-style ${more} --state '${state()}'`)}`,
          options,
        )
        await clean()
        return done
      }
      const peer = (filter) => async () => {
        const done = await measure(
          () => `cat '${file}' ${filter} | ${aws} s3 cp --quiet --expected-size ${bytes} - s3://bench/peer`,
          options,
        )
        await clean()
        return done
      }
      if (wants('s3'))
        results.push(await compare(`stdin to S3 until uploaded (${kind})`, pairs, peer(''), () => upload(file, ''), 1))
      if (wants('s3') && ten)
        memory.push([`stdin to S3 (${kind}), ten times the bytes`, (await upload(data(bytes * 10).file, '')).mib])
      if (wants('gzip'))
        results.push(
          await compare(
            `the same with gzip level 6 (${kind})`,
            pairs,
            peer('| gzip -6'),
            () => upload(file, 'compression=gzip compression-level=6'),
            1.5,
          ),
        )
    } finally {
      await server.stop()
    }
  }
}

module.exports = { names: ['s3', 'gzip'], run }
